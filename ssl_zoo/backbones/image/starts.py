"""How authors start their vision transformers: weights that are drawn over timm's, in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

DEVIATION = 0.02  # of truncated normal weights, the same for all authors


def keep_timm(net: Any) -> None:
    """timm's start: linear layers and positions truncated normal, biases 0, a class token of deviation 1e-6."""


@torch.no_grad()
def use_xavier(net: Any) -> None:
    """MoCo v3's start: Xavier-uniform layers (query, key and value are three matrices), biases 0.

    The patch projection counts 3 input channels whatever it has, as in the authors' ``vits.py``.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            _uniform(module, module.in_features + out)
    patch = net.patch_embed.proj
    _uniform(patch, 3 * math.prod(patch.kernel_size) + net.embed_dim)


@torch.no_grad()
def use_mae_start(net: Any) -> None:
    """MAE's start (``models_mae.py``): Xavier-uniform layers, biases 0, a class token of deviation 0.02.

    Unlike MoCo v3's, query, key and value are one matrix, and the bias of the patch projection stays as torch draws it.
    """
    start_linear(net)
    nn.init.xavier_uniform_(net.patch_embed.proj.weight.flatten(1))
    if net.cls_token is not None:
        nn.init.normal_(net.cls_token, std=DEVIATION)


@torch.no_grad()
def use_dino_start(net: Any) -> None:
    """DINO's and iBOT's start (``vision_transformer.py``): timm's, but a class token of deviation 0.02."""
    if net.cls_token is not None:
        nn.init.trunc_normal_(net.cls_token, std=DEVIATION)


@torch.no_grad()
def use_msn_start(net: Any) -> None:
    """MSN's start (``src/deit.py``): DINO's, and a patch projection of variance 2 / fan-in without bias."""
    use_dino_start(net)
    nn.init.kaiming_normal_(net.patch_embed.proj.weight, mode="fan_in", nonlinearity="relu")
    nn.init.zeros_(net.patch_embed.proj.bias)


@torch.no_grad()
def use_ijepa_start(net: Any) -> None:
    """I-JEPA's start: timm's, but the patch projection is drawn like the linear layers.

    ``src/models/vision_transformer.py`` rescales layers by their depth, and ``src/helper.py`` draws them again.
    """
    nn.init.trunc_normal_(net.patch_embed.proj.weight, std=DEVIATION)
    nn.init.zeros_(net.patch_embed.proj.bias)


@torch.no_grad()
def use_beit_start(net: Any) -> None:
    """SimMIM's start (``models/simmim.py``, after BEiT): normal weights cut off at their deviation of 0.02, biases 0.

    Layers that end a branch are divided by ``sqrt(2 l)`` in the l-th block, counted from 1.
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            _cut_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in (net.cls_token, net.pos_embed):
        if token is not None:
            _cut_normal(token)
    for number, block in enumerate(net.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.div_(math.sqrt(2.0 * number))


STARTS: dict[str, Callable[[Any], None]] = {
    "timm": keep_timm,
    "xavier": use_xavier,
    "mae": use_mae_start,
    "dino": use_dino_start,
    "msn": use_msn_start,
    "ijepa": use_ijepa_start,
    "beit": use_beit_start,
}


def start_linear(module: nn.Module) -> None:
    """In place: Xavier-uniform weights and zero biases for every linear layer below ``module``."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _cut_normal(x: Tensor) -> None:
    nn.init.trunc_normal_(x, std=DEVIATION, a=-DEVIATION, b=DEVIATION)


def _uniform(layer: nn.Linear | nn.Conv2d, fans: int) -> None:
    bound = math.sqrt(6.0 / fans)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
