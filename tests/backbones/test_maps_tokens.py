"""Maps, stages, tokens and passes over several views agree with ``forward``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ssl_zoo.backbones import image
from ssl_zoo.backbones.apply import concat, per_view
from ssl_zoo.backbones.image import tiny
from ssl_zoo.errors import ConfigError

SMALL = {"image_size": 32, "stem": "small"}


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: tiny.resnet8(width=16),
        lambda: image.resnet18(**SMALL),
        lambda: image.timm_model("resnet18", **SMALL),
        lambda: image.timm_model("convnext_atto", **SMALL),
    ],
    ids=["resnet8", "torchvision", "timm", "convnext"],
)
def test_stages_applied_in_order_give_the_maps_and_the_features(backbone, views):
    backbone = backbone().eval()
    x, maps = views(32), backbone.forward_maps(views(32))
    stages = backbone.stages()
    assert len(stages) == len(maps)
    for stage, wanted in zip(stages, maps, strict=True):
        x = stage(x)
        assert torch.equal(x, wanted)
    sides = [m.shape[-1] for m in maps]
    assert sides == sorted(sides, reverse=True) and sides[-1] == 32 // backbone.min_size
    if isinstance(getattr(backbone.net, "fc", None), nn.Identity):
        assert torch.allclose(maps[-1].mean((2, 3)), backbone(views(32)), atol=1e-6)
    own = {id(p) for p in backbone.parameters()}
    assert {id(p) for stage in stages for p in stage.parameters()} <= own


def test_torchvision_convnext_has_four_stages():
    with torch.device("meta"):
        backbone = image.torchvision_model("convnext_tiny", image_size=64)
        assert [tuple(m.shape[1:]) for m in backbone.forward_maps(torch.empty(1, 3, 64, 64))] == [
            (96, 16, 16),
            (192, 8, 8),
            (384, 4, 4),
            (768, 2, 2),
        ]


def test_stages_add_no_names_to_the_state():
    backbone = tiny.resnet8(width=16)
    before = list(backbone.state_dict())
    backbone.stages()
    assert list(backbone.state_dict()) == before
    assert all(name.startswith("net.") for name in before)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return tiny.vit_mini().eval()


def test_the_class_token_is_the_features(vit, views):
    tokens = vit.forward_tokens(views(32))
    assert torch.allclose(tokens.cls, vit(views(32)), atol=1e-6)
    assert tokens.patches.shape == (2, 64, 128) and tokens.grid == (8, 8)
    wanted = vit.net.forward_features(views(32))
    assert torch.allclose(tokens.patches, wanted[:, 1:], atol=1e-6)


def test_crops_of_another_size_than_built(vit, views):
    tokens = vit.forward_tokens(views(24))
    assert tokens.grid == (6, 6) and tokens.patches.shape == (2, 36, 128)
    assert torch.allclose(tokens.cls, vit(views(24)), atol=1e-6)
    wide = torch.rand(2, 3, 16, 24)
    assert vit.forward_tokens(wide).grid == (4, 6)


def test_keeping_all_patches_changes_nothing_and_their_order_is_free(vit, views):
    x, full = views(32), vit.forward_tokens(views(32))
    order = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    tokens = vit.forward_tokens(x, keep=order)
    wanted = full.patches.gather(1, order.unsqueeze(-1).expand(-1, -1, 128))
    assert torch.allclose(tokens.patches, wanted, atol=1e-5)
    assert torch.allclose(tokens.cls, full.cls, atol=1e-5)


def test_dropped_patches_do_not_matter(vit, views):
    x = views(32)
    keep = torch.arange(8, 16).expand(2, -1)  # the second row of patches: pixels 4 to 7
    other = torch.rand_like(x)
    other[:, :, 4:8] = x[:, :, 4:8]
    a, b = vit.forward_tokens(x, keep=keep), vit.forward_tokens(other, keep=keep)
    assert a.patches.shape == (2, 8, 128) and a.grid == (8, 8)
    assert torch.equal(a.patches, b.patches) and torch.equal(a.cls, b.cls)
    assert not torch.allclose(a.cls, vit.forward_tokens(x, keep=keep + 8).cls, atol=1e-3)  # position and content count


def test_masked_patches_are_replaced_before_the_position(vit, views):
    x, token = views(32), torch.ones(1, 1, 128, requires_grad=True)
    mask = torch.zeros(2, 64, dtype=torch.bool)
    assert torch.equal(vit.forward_tokens(x, mask=mask, mask_token=token).cls, vit.forward_tokens(x).cls)
    mask[:, 8:16] = True
    other = x.clone()
    other[:, :, 4:8] = 0.5
    a, b = (vit.forward_tokens(v, mask=mask, mask_token=token) for v in (x, other))
    assert torch.equal(a.patches, b.patches)
    assert not torch.allclose(a.patches[:, 8], a.patches[:, 9], atol=1e-4)  # same token, other positions
    a.patches.sum().backward()
    assert token.grad is not None and token.grad.shape == (1, 1, 128)


def test_wrong_masks_say_what_is_wrong(vit, views):
    with pytest.raises(ValueError, match="mask was given without mask_token"):
        vit.forward_tokens(views(32), mask=torch.ones(2, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask has shape \[2, 49\], wanted \[2, 64\]"):
        vit.forward_tokens(views(32), mask=torch.ones(2, 49, dtype=torch.bool), mask_token=torch.ones(128))


def test_last_layers_lie_side_by_side_earliest_first(vit, views):
    tokens = vit.forward_tokens(views(32), layers=3)
    assert tokens.cls.shape == (2, 3 * 128) and tokens.patches.shape == (2, 64, 3 * 128)
    assert torch.allclose(tokens.cls[:, -128:], vit(views(32)), atol=1e-6)
    second = vit.net.get_intermediate_layers(views(32), n=[1], norm=True)[0]
    assert torch.allclose(tokens.patches[..., :128], second, atol=1e-6)
    with pytest.raises(ValueError, match="layers=5: backbone 'vit_tiny_patch16_224' has 1 to 4"):
        vit.forward_tokens(views(32), layers=5)


def test_average_pooling_has_no_class_token(views):
    backbone = tiny.vit_mini(class_token=False, global_pool="avg")
    assert backbone.forward_tokens(views(32)).cls is None
    assert backbone(views(32)).shape == (2, 128)


def test_sizes_are_checked_by_every_forward(vit):
    with pytest.raises(ConfigError, match="wanted a multiple of its patch of 4 px"):
        vit.forward_tokens(torch.rand(1, 3, 30, 30))
    with pytest.raises(ConfigError, match="wanted at least 4 x 4"):
        tiny.resnet8().forward_maps(torch.rand(1, 3, 2, 2))


def test_every_parameter_gets_a_gradient(views):
    convnext = image.timm_model("convnext_atto", **SMALL)
    for backbone in (tiny.resnet8(width=16), tiny.vit_mini(), convnext):
        backbone(views(32)).square().sum().backward()
        assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_a_teacher_is_a_deep_copy(views):
    for backbone in (tiny.resnet8(width=16).eval(), tiny.vit_mini().eval()):
        assert torch.equal(copy.deepcopy(backbone)(views(32)), backbone(views(32)))


def test_concat_is_one_batch_per_size_in_the_order_of_the_views(views):
    backbone = tiny.resnet8(width=16)
    a, b, c = views(32), views(16), views(32, batch=4)
    calls: list[tuple[int, ...]] = []
    backbone.register_forward_pre_hook(lambda module, args: calls.append(tuple(args[0].shape)))
    outputs = concat(backbone, [a, b, c])
    assert calls == [(6, 3, 32, 32), (2, 3, 16, 16)]
    wanted = backbone(torch.cat([a, c]))  # batch norm in training mode saw both views together
    assert torch.allclose(outputs[0], wanted[:2], atol=1e-5) and torch.allclose(outputs[2], wanted[2:], atol=1e-5)
    assert torch.allclose(outputs[1], backbone(b), atol=1e-5)
    alone = per_view(backbone, [a, b, c])
    assert torch.allclose(alone[0], backbone(a), atol=1e-5)
    assert not torch.allclose(alone[0], outputs[0], atol=1e-3)
