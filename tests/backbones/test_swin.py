"""Swin: torchvision's numbers at any size of a view, windows that tile, hidden squares, weights of other libraries."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

from ssl_zoo.backbones import image
from ssl_zoo.backbones.image.windows import tiling_window
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.dropout import DropPath, draw_for_samples
from ssl_zoo.modules.ema import EMA
from tests.helpers import quickly, tiny_batch, tiny_method, train_step

TINY = {"embed_dim": 8, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 2, 2)}
WORDS = ["+backbone.embed_dim=8", "+backbone.depths=[2,2,1,1]", "+backbone.num_heads=[1,2,2,2]"]


def tiny_swin(image_size: Any = 32, stem: str = "small", **arguments: Any) -> Any:
    torch.manual_seed(0)
    return image.swin_tiny(image_size=image_size, stem=stem, **{**TINY, **arguments}).eval()


def torchvisions(patch: int, window: int) -> nn.Module:
    torch.manual_seed(1)
    net = SwinTransformer([patch, patch], 8, [2, 2, 1, 1], [1, 2, 2, 2], [window, window], stochastic_depth_prob=0.0)
    for name, values in net.named_parameters():  # a table of nearly 0 would hide which displacement it is of
        if name.endswith("table"):
            nn.init.normal_(values)
    net.head = nn.Identity()
    return net.eval()


# Maps of 12, 6, 3 and 2 places on a side in the first view: windows of 3 tile all of them but the last.
@pytest.mark.parametrize("size", [(48, 48), (64, 64), (40, 72), (96, 32)])
def test_features_are_torchvisions_for_views_of_any_size(size, tmp_path):
    theirs, view = torchvisions(4, 3), torch.rand(2, 3, *size)
    torch.save(theirs.state_dict(), file := tmp_path / "theirs.pt")
    ours = tiny_swin(96, "standard", window_size=3, weights=str(file))
    assert "tensors match" in ours.told[0] and "left:" not in ours.told[0]
    torch.testing.assert_close(ours(view), theirs(view), rtol=1e-4, atol=1e-5)


def test_features_are_timms_where_windows_tile_the_maps():
    ours = tiny_swin(64, "standard")
    assert ours.origin.arguments["window_size"] == 4
    theirs = timm.create_model(ours.origin.name, **ours.origin.arguments).eval()
    theirs.load_state_dict(ours.net.state_dict())
    view = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(ours(view), theirs(view))


@pytest.mark.parametrize(
    ("size", "patch", "window"),
    [(224, 4, 7), (192, 4, 6), (160, 4, 5), (128, 4, 4), (96, 4, 6), (32, 1, 4), (28, 1, 7), ([64, 32], 1, 4)],
)
def test_the_window_tiles_the_maps_where_one_can(size, patch, window):
    assert tiling_window(size, patch) == window


@pytest.mark.parametrize(
    ("name", "features", "parameters"),
    [
        ("tiny", 768, 27_519_354),
        pytest.param("small", 768, 48_837_258, marks=pytest.mark.slow),
        pytest.param("base", 1024, 86_743_224, marks=pytest.mark.slow),
    ],
)
def test_the_published_sizes(name, features, parameters):
    """27.5, 48.8 and 86.7 million without the classifier of 1,000 classes (28.3, 49.6 and 87.8 with it)."""
    with torch.device("meta"):
        net = getattr(image, f"swin_{name}")()
    assert (net.out_features, sum(p.numel() for p in net.parameters())) == (features, parameters)


def test_stages_in_order_give_the_maps_and_the_last_one_is_pooled():
    net, view = tiny_swin(), torch.rand(2, 3, 32, 32)
    maps, x = net.forward_maps(view), view
    for stage, wanted in zip(net.stages(), maps, strict=True):
        x = stage(x)
        assert torch.equal(x, wanted)
    assert [tuple(found.shape[1:]) for found in maps] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    dense = net.forward_dense(view)
    for pooled in (maps[-1].mean((2, 3)), dense.pooled, dense.patches.mean(1)):
        torch.testing.assert_close(pooled, net(view), rtol=1e-4, atol=1e-5)
    assert dense.grid == (4, 4) and net.min_size == net.token_size == 8


def test_what_is_hidden_does_not_matter_and_the_token_learns():
    net, view = tiny_swin(), torch.rand(2, 3, 32, 32)
    token = nn.Parameter(torch.ones(1, 1, net.mask_features))
    mask = torch.zeros(2, 16, dtype=torch.bool)
    torch.testing.assert_close(net.forward_tokens(view, mask=mask, mask_token=token).cls, net(view))
    mask[:, 5] = True  # second row and column of squares of 8 pixels
    other = view.clone()
    other[:, :, 8:16, 8:16] = 0.5
    a, b = (net.forward_tokens(x, mask=mask, mask_token=token) for x in (view, other))
    assert torch.equal(a.patches, b.patches) and a.grid == (4, 4) and a.patches.shape == (2, 16, 64)
    other[:, :, 8:16, 7] = 0.5
    assert not torch.equal(net.forward_tokens(other, mask=mask, mask_token=token).patches, a.patches)
    a.patches.square().sum().backward()
    assert token.grad is not None and token.grad.abs().min() > 0


def test_windows_that_padding_completes_do_not_join_opposite_borders():
    """Places 2 to 5 of 6 fill a shifted window of 4; the next one begins with padding and ends with places 0 and 1."""
    net = tiny_swin(32, "standard", window_size=4)
    block, x = net.net.layers[0].blocks[1], torch.rand(1, 6, 6, 8)
    other = x.clone()
    other[:, :, 0] = 0.0
    a, b = block(x), block(other)
    assert torch.equal(a[:, :, 2:], b[:, :, 2:]) and not torch.equal(a[:, :, 1], b[:, :, 1])


def test_it_computes_in_other_precisions_and_drops_paths_by_samples():
    net, view = tiny_swin(drop_path_rate=0.5), torch.rand(2, 3, 24, 40)
    torch.testing.assert_close(net.double()(view.double()).float(), net.float()(view), rtol=1e-3, atol=1e-4)
    half = net.bfloat16()(view.bfloat16())
    assert half.dtype == torch.bfloat16 and half.isfinite().all()
    draw_for_samples(net)
    assert [type(part) for part in paths(net)] == [DropPath] * 10  # two a block, but for the first, which never drops
    assert all(part.drop_prob for part in paths(net)) and not any(part.drop_prob for part in paths(EMA(net)))


def paths(module: nn.Module) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, timm.layers.DropPath)]


def test_wrong_use_is_refused():
    net, view = tiny_swin(), torch.rand(1, 3, 32, 32)
    with pytest.raises(ConfigError, match="leaves patches out, and the windows of backbone 'swin_.*' need all"):
        net.forward_tokens(view, keep=torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="layers=2: backbone '.*' has tokens of its last layer only; set it to 1"):
        net.forward_tokens(view, layers=2)
    with pytest.raises(ValueError, match=r"mask has shape \[1, 9\], wanted \[1, 16\]"):
        net.forward_tokens(view, mask=torch.ones(1, 9, dtype=torch.bool), mask_token=torch.ones(8))
    with pytest.raises(ConfigError, match="got 4 x 4 px, wanted at least 8 x 8"):
        net(view[..., :4, :4])
    with pytest.raises(ConfigError, match="got 16 x 16 px, wanted at least 32 x 32.*data.image_size=32"):
        tiny_swin(16, "standard")
    with pytest.raises(ConfigError, match="reads squares of 32 px .* views of 48 x 48 px do not .* to 32 or 64"):
        tiny_swin(48, "standard").require_tokens("SimMIM")
    with pytest.raises(ConfigError, match="MAE leaves patches out, and the windows of backbone .*: vit_mini, vit_tiny"):
        tiny_method("mae", ["backbone=swin_tiny", *WORDS, "data.image_size=32"], tiny=False)


@pytest.mark.parametrize("prefix", ["", "model.encoder."])
def test_the_authors_files_are_read(prefix, tmp_path):
    """They merge patches at the end of a stage, and keep indices and masks that follow from the sizes."""
    ours, other = tiny_swin(), tiny_swin()
    nn.init.normal_(other.net.layers[1].downsample.reduction.weight)
    theirs = {}
    for name, value in other.net.state_dict().items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        theirs[prefix + name] = value
    theirs[f"{prefix}layers.0.blocks.1.attn_mask"] = torch.zeros(4)
    theirs[f"{prefix}layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4)
    torch.save(theirs, file := tmp_path / "theirs.pt")
    start_from(ours, str(file))
    for name, value in ours.net.state_dict().items():
        assert torch.equal(value, other.net.state_dict()[name]), name


def test_weights_of_another_window_and_patch_size_are_resampled(tmp_path):
    small, large = tiny_swin(window_size=4), tiny_swin(64, "standard", window_size=7, patch_size=2)
    torch.save(small.net.state_dict(), file := tmp_path / "small.pt")
    start_from(large, str(file))
    (before, after) = (net.net.layers[0].blocks[0].attn.relative_position_bias_table for net in (small, large))
    assert before.shape == (49, 1) and after.shape == (169, 1)
    assert after[84].item() == pytest.approx(before[24].item(), abs=1e-6)  # no displacement
    kernel = small.net.patch_embed.proj.weight
    flat = torch.ones(1, 3, 2, 2)  # what a patch of one colour gives is what it was
    given, wanted = large.net.patch_embed.proj(flat), small.net.patch_embed.proj(flat[..., :1, :1])
    assert kernel.shape[2:] == (1, 1) and given.shape == wanted.shape
    torch.testing.assert_close(given, wanted, rtol=1e-3, atol=1e-4)


KINDS = ("byol", "vicregl", "amdim", "loco", "simmim", "ibot", "dinov2")


@pytest.mark.parametrize("name", quickly(KINDS, ("amdim", "loco", "simmim", "ibot")))
def test_methods_of_every_kind_train_on_it(name):
    block = ["method.mask_block=1"] if name == "simmim" else []
    method = tiny_method(name, ["backbone=swin_tiny", *WORDS, "data.image_size=32", *block], tiny=False)
    sizes = [32] if name == "simmim" else [32, 32]
    out = train_step(method, tiny_batch(sizes))
    assert torch.isfinite(torch.tensor(float(out["loss"])))
    wanted = {n for n, p in method.named_parameters() if p.requires_grad and n.startswith(("backbone.", "mask_token"))}
    assert wanted and wanted <= out["gradients"].keys()
