"""MoCo v3: the factor of its loss, and the start of its transformers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_zoo import config
from ssl_zoo.backbones import image
from ssl_zoo.backbones.image import tiny
from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method, train_step

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "mocov3_a.npz"
MOCO = {"positions": "sincos", "start": "xavier", "freeze_patch_embed": True}


def test_each_direction_counts_twice_the_temperature():
    method = tiny_method("moco_v3", ["method.temperature=0.5"])
    z = torch.eye(8)[:2]
    # The key matches one of two orthogonal queries: log(1 + exp(-1 / T)), times 2 T = 1.
    assert method.contrast(3 * z, 5 * z).item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_heads_that_do_not_match_are_refused():
    with pytest.raises(ConfigError, match=r"method.predictor.out_features=4 differs from the projector's 8"):
        tiny_method("moco_v3", ["method.predictor.out_features=4"])


def test_positions_are_the_authors():
    wanted = np.load(GOLDEN)["f32/sincos/pos_embed"]
    net = tiny.vit_mini(image_size=32, positions="sincos").net
    assert not net.pos_embed.requires_grad and not net.pos_embed[:, 0].any()
    torch.testing.assert_close(net.pos_embed[:, 1:], sincos_positions((8, 8), 128))
    np.testing.assert_allclose(sincos_positions((4, 4), wanted.shape[2]), wanted[:, 1:], atol=1e-6)
    # Place (row 1, column 0) has the sine of 1 first, and the sine of 0 in the second half.
    assert sincos_positions((2, 2), 4)[0, 2].tolist() == pytest.approx([math.sin(1), math.cos(1), 0.0, 1.0])


def test_layers_start_uniform_with_their_own_bounds():
    torch.manual_seed(0)
    net = tiny.vit_mini(image_size=32, start="xavier").net
    block = net.blocks[0]
    bounds = {
        block.attn.qkv: 6 / (128 + 128),  # query, key and value are three matrices of 128 x 128
        block.attn.proj: 6 / (128 + 128),
        block.mlp.fc1: 6 / (128 + 512),
        net.patch_embed.proj: 6 / (3 * 4 * 4 + 128),
    }
    for layer, square in bounds.items():
        largest = layer.weight.abs().max().item()
        assert 0.98 * math.sqrt(square) < largest <= math.sqrt(square) and not layer.bias.any()


def test_a_frozen_patch_projection_stays_as_drawn_in_student_and_teacher():
    given = ["backbone=vit_mini", *(f"backbone.{key}={value}" for key, value in MOCO.items())]
    method = tiny_method("moco_v3", given, tiny=False)
    start = method.backbone.net.patch_embed.proj.weight.clone()
    before = method.backbone.net.blocks[0].attn.qkv.weight.clone()
    for step in range(2):
        train_step(method, tiny_batch([16, 16], step))
    assert torch.equal(method.backbone.net.patch_embed.proj.weight, start)
    assert torch.equal(method.teacher.net[0].net.patch_embed.proj.weight, start)
    assert not torch.equal(method.backbone.net.blocks[0].attn.qkv.weight, before)
    trained = {id(p) for group in method.bound.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(method.backbone.net.pos_embed), id(method.backbone.net.patch_embed.proj.bias)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"positions": "sinus"}, "backbone.positions=sinus: did you mean 'sincos'"),
        ({"start": "moco"}, "backbone.start=moco: there are: beit, dino, ijepa, mae, msn, timm, xavier"),
    ],
)
def test_unknown_choices_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        tiny.vit_mini(image_size=32, **given)


def test_the_vit_recipe_is_the_authors():
    cfg = config.plain(config.load(["experiment=moco_v3_imagenet_vits_300ep"]))
    assert cfg["augmentation"]["views"][0]["ops"][0]["image/random_resized_crop"]["scale"] == [0.08, 1.0]
    assert cfg["backbone"]["num_heads"] == 12 and cfg["backbone"]["freeze_patch_embed"] is True
    method, optimizer = cfg["method"], cfg["optimizer"]
    assert method["projector"]["hidden"] == [4096, 4096] and method["predictor"]["last_norm"] == "batch_no_affine"
    assert optimizer["values"]["weight_decay"] == 0.1 and optimizer["rules"]["biases_and_norms"] is None
    assert optimizer["values"]["lr"]["peak"] == 1.5e-4 and optimizer["values"]["lr"]["warmup_epochs"] == 40


@pytest.mark.slow
def test_vit_small_of_moco_v3_builds():
    backbone = image.vit_small(num_heads=12, **MOCO)
    assert backbone.net.blocks[0].attn.num_heads == 12 and backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 384)
