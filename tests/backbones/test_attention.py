"""Attention of the last block, and positions for other sizes as DINO's authors compute them."""

from __future__ import annotations

import copy

import pytest
import torch

from ssl_zoo.backbones.image import tiny
from ssl_zoo.backbones.image.vision_transformer import bicubic_positions
from ssl_zoo.errors import ConfigError


def vit(**arguments: object):
    torch.manual_seed(0)
    return tiny.vit_mini(embed_dim=16, depth=2, num_heads=2, **arguments).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{}, {"qk_norm": True}, {"reg_tokens": 3}], ids=["plain", "qk_norm", "registers"])
def test_it_is_what_the_last_block_mixes_its_values_by(arguments, views):
    backbone, x = vit(**arguments), views(32)
    block, seen = backbone.net.blocks[-1], {}
    block.attn.register_forward_hook(lambda module, given, out: seen.update(x=given[0], out=out))
    backbone(x)
    found = backbone.forward_attention(x)
    assert found.grid == (8, 8) and found.prefix == 1 + arguments.get("reg_tokens", 0)
    assert found.weights.shape == (2, 2, 64 + found.prefix, 64 + found.prefix)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(found.weights.shape[:3]))
    values = block.attn.qkv(seen["x"]).unflatten(-1, (3, 2, 8))[:, :, 2].transpose(1, 2)  # [B, heads, P + N, D]
    mixed = (found.weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attn.proj(mixed), seen["out"])


def test_a_network_without_attention_says_who_has_it(views):
    with pytest.raises(ConfigError, match="backbone 'resnet8' has no attention; these have: vit_mini"):
        tiny.resnet8().forward_attention(views(32))


def test_the_grid_of_training_keeps_its_positions():
    positions = torch.randn(1, 1 + 12, 4)
    assert bicubic_positions(positions, (3, 4), (3, 4), 1) is positions


def test_another_grid_is_sampled_a_tenth_of_a_patch_off():
    # The sampling point of place i is (i + .5) * 8 / 4.1 - .5; with 8 / 4 it would be 2.5 and 4.5. Torch's bicubic
    # kernel gives back a straight line to 0.03.
    line = torch.arange(8.0).expand(8, 8).reshape(1, 64, 1)
    positions = torch.cat([torch.full((1, 1, 1), 9.0), line], 1)
    found = bicubic_positions(positions, (8, 8), (4, 4), 1)
    assert found.shape == (1, 17, 1) and found[0, 0] == 9.0
    inner = found[0, 1:, 0].view(4, 4)[1, 1:3]
    torch.testing.assert_close(inner, torch.tensor([2.4268, 4.3780]), rtol=0, atol=0.03)


def test_the_option_changes_other_sizes_only_and_survives_a_copy(views):
    ours, theirs = vit(), vit(interpolation="dino")
    theirs.load_state_dict(ours.state_dict())
    copied = copy.deepcopy(theirs)
    assert torch.equal(ours(views(32)), theirs(views(32)))
    small = theirs(views(24))
    assert torch.equal(copied(views(24)), small) and not torch.allclose(ours(views(24)), small, atol=1e-5)
    with pytest.raises(ConfigError, match="backbone.interpolation=dinno: did you mean 'dino'"):
        vit(interpolation="dinno")


@pytest.mark.parametrize("arguments", [{"reg_tokens": 2}, {"no_embed_class": True}], ids=["registers", "apart"])
def test_every_layout_of_prefix_tokens_is_that_of_timm(arguments, views):
    ours, theirs = vit(**arguments), vit(interpolation="dino", **arguments)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(views(32)), theirs(views(32)))
