"""Relative positions: as timm's BEiT computes them, for all patches, some of them, and smaller views."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from ssl_zoo.backbones import image
from ssl_zoo.backbones.image.vision_transformer import ViT
from ssl_zoo.errors import ConfigError

SIZES = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "init_values": 0.1}
NAMES = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}


def vit(**extra: Any) -> ViT:
    torch.manual_seed(0)
    backbone = image.vit(
        "vit_tiny_patch16_224", image_size=16, positions="relative", start="beit", **{**SIZES, **extra}
    )
    with torch.no_grad():
        for p in backbone.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return backbone.double().eval()


def beit(ours: ViT) -> Any:
    """timm's BEiT with our weights; its keys have no bias, which softmax would not notice."""
    options = {"use_abs_pos_emb": False, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
    net = timm.create_model(
        "beit_base_patch16_224", img_size=16, num_classes=0, global_pool="token", **{**SIZES, **options}
    )
    state = ours.net.state_dict()
    for name, wanted in net.state_dict().items():
        path, _, leaf = name.rpartition(".")
        renamed = f"{path}.{NAMES.get(leaf, leaf)}".lstrip(".")
        if leaf in ("q_bias", "v_bias", "k_bias"):
            part = "qkv".index(leaf[0])
            state[name] = state[f"{path}.qkv.bias"].chunk(3)[part] * (leaf != "k_bias")
        elif "relative_position_index" in name:
            state[name] = wanted
        else:
            state[name] = state[renamed]
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    return net.double().eval()


def view(size: int = 16) -> Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_network_is_timms_beit_with_shared_positions() -> None:
    ours = vit()
    tokens = ours.forward_tokens(view())
    theirs = beit(ours)
    torch.testing.assert_close(torch.cat([tokens.cls[:, None], tokens.patches], 1), theirs.forward_features(view()))
    torch.testing.assert_close(ours(view()), tokens.cls)
    assert ours.net.pos_embed is None and ours.net.rel_pos_bias.relative_position_bias_table.shape == (7 * 7 + 3, 2)


def test_a_bias_of_keys_is_nothing_to_softmax() -> None:
    ours = vit()
    before = ours(view())
    with torch.no_grad():
        for block in ours.net.blocks:
            block.attn.qkv.bias[16:32] += 1.0
    torch.testing.assert_close(ours(view()), before)


def test_all_patches_in_another_order_are_the_same_image() -> None:
    ours, whole = vit(), vit().forward_tokens(view())
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    kept = ours.forward_tokens(view(), keep=order)
    torch.testing.assert_close(kept.cls, whole.cls)
    torch.testing.assert_close(kept.patches, whole.patches.gather(1, order[:, :, None].expand(-1, -1, 16)))


def test_attention_has_the_bias_of_the_last_block() -> None:
    ours = vit(depth=1)
    with torch.no_grad():
        ours.net.blocks[0].attn.qkv.weight.zero_()
        ours.net.blocks[0].attn.qkv.bias.zero_()
    bias = ours.net.rel_pos_bias((4, 4), 1)
    torch.testing.assert_close(ours.forward_attention(view()).weights[0], bias.softmax(-1))


def test_smaller_views_take_the_displacements_that_they_have_and_larger_ones_are_refused() -> None:
    relative = vit().net.rel_pos_bias
    whole, part = relative((4, 4), 1), relative((2, 2), 1)
    corner = [0, 1, 2, 5, 6]  # the class token and the patches of a corner
    torch.testing.assert_close(part, whole[:, corner][:, :, corner])
    assert vit()(view(8)).shape == (3, 16)
    with pytest.raises(ConfigError, match="relative knows displacements within 4 x 4 patches, and a view has 5 x 5"):
        vit()(view(20))


def test_half_precision_takes_the_bias_too() -> None:
    ours = vit().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(view().float())
    torch.testing.assert_close(low.float(), ours(view().float()), rtol=0.1, atol=0.1)
    assert ours.bfloat16()(view().bfloat16()).dtype == torch.bfloat16
