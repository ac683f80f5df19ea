"""First values of vision transformers, as their authors draw them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssl_zoo.backbones import image
from ssl_zoo.backbones.image import tiny

CUT = 0.5396  # standard deviation of a normal distribution that is cut off at its own


def net(start: str) -> Any:
    torch.manual_seed(0)
    return tiny.vit_mini(image_size=32, start=start).net


@pytest.mark.parametrize(
    ("start", "token", "patch", "linear"),
    [
        ("timm", 1e-6, 1 / math.sqrt(3 * 48), 0.02),
        ("dino", 0.02, 1 / math.sqrt(3 * 48), 0.02),
        ("msn", 0.02, math.sqrt(2 / 48), 0.02),
        ("ijepa", 1e-6, 0.02, 0.02),
        ("beit", CUT * 0.02, CUT * 0.02, CUT * 0.02),
    ],
)
def test_deviations(start: str, token: float, patch: float, linear: float) -> None:
    drawn = net(start)
    found = [x.std().item() for x in (drawn.cls_token, drawn.patch_embed.proj.weight, drawn.blocks[0].attn.qkv.weight)]
    assert found == [pytest.approx(token, rel=0.25), pytest.approx(patch, rel=0.05), pytest.approx(linear, rel=0.05)]
    assert not drawn.blocks[0].attn.qkv.bias.any() and drawn.pos_embed.std() > 0
    assert bool(drawn.patch_embed.proj.bias.any()) == (start in ("timm", "dino"))  # torch's own start


def test_beits_start_cuts_at_the_deviation_and_shrinks_branches_with_the_depth() -> None:
    blocks = net("beit").blocks
    assert max(p.abs().max().item() for p in blocks[2].mlp.fc1.parameters()) <= 0.02
    for i, block in enumerate(blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            assert layer.weight.std().item() == pytest.approx(CUT * 0.02 / math.sqrt(2 * i), rel=0.05)


def test_larger_networks_have_the_sizes_of_their_names() -> None:
    with torch.device("meta"):
        large, huge = (build(image_size=224) for build in (image.vit_large, image.vit_huge))
    assert [(b.out_features, len(b.net.blocks), b.size_step) for b in (large, huge)] == [(1024, 24, 16), (1280, 32, 14)]


def test_a_patch_size_of_ones_own() -> None:
    assert image.vit_small(image_size=28, patch_size=14).net.patch_embed.grid_size == (2, 2)


def test_features_behind_a_linear_layer_have_its_width_and_no_tokens() -> None:
    backbone = tiny.vit_mini(image_size=32, num_classes=24)
    view = torch.rand(2, 3, 32, 32)
    assert backbone.out_features == 24 == backbone(view).shape[1] and not backbone.has_tokens
    assert {"net.head.weight", "net.head.bias"} <= backbone.state_dict().keys()
