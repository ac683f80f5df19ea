"""Plain vision transformers of timm: one class token, patch tokens, learned positions; and how MoCo v3 starts them."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Tokens


class ViT(Backbone):
    """timm's ``VisionTransformer`` built with ``dynamic_img_size``: positions are interpolated for other view sizes."""

    @property
    def has_tokens(self) -> bool:
        return True

    def forward_tokens(
        self,
        view: Tensor,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        layers: int = 1,
    ) -> Tokens:
        """Class and patch tokens after the final norm.

        Args:
            view: ``[B, C, H, W]``.
            keep: ``[B, K]`` int64, patches that enter the blocks, in this order; the others are dropped *after* the
                position embedding (MAE, https://arxiv.org/abs/2111.06377).
            mask: ``[B, N]`` bool, patches replaced by ``mask_token`` *before* the position embedding (BEiT, SimMIM).
            mask_token: F numbers of any shape that ends in F; belongs to the method, needed with ``mask``.
            layers: Take the last L blocks, features side by side, earliest first (DINO's evaluation): F becomes L * F.

        Returns:
            ``cls [B, F]`` (None without class token), ``patches [B, N, F]`` or ``[B, K, F]``, ``grid (h, w)``.

        Raises:
            ConfigError: If the view does not suit the network.
            ValueError: If ``mask`` lacks its token or has another number of patches, or ``layers`` is out of range.
        """
        self.check(view)
        net = cast(Any, self.net)
        if not 1 <= layers <= len(net.blocks):
            raise ValueError(f"layers={layers}: backbone {self.name!r} has 1 to {len(net.blocks)}")
        x = net.patch_embed(view)  # [B, h, w, F]
        grid = (x.shape[1], x.shape[2])
        if mask is not None:
            x = _replace(x, mask, mask_token)
        x = net.norm_pre(net.patch_drop(net._pos_embed(x)))  # [B, P + N, F], P prefix tokens
        prefix = net.num_prefix_tokens
        if keep is not None:
            kept = x[:, prefix:].gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            x = torch.cat([x[:, :prefix], kept], dim=1)
        outputs = []
        for block in net.blocks:
            x = block(x)
            outputs.append(x)
        x = torch.cat([net.norm(output) for output in outputs[-layers:]], dim=-1)
        return Tokens(x[:, 0] if net.has_class_token else None, x[:, prefix:], grid)

    def fit_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also resample patches and positions that were trained at another patch or image size."""
        from timm.layers import resample_abs_pos_embed, resample_patch_embed

        net = cast(Any, self.net)
        state = super().fit_weights(state)
        patch, positions = state.get("patch_embed.proj.weight"), state.get("pos_embed")
        own = net.patch_embed.proj.weight
        if patch is not None and patch.ndim == 4 and patch.shape[2:] != own.shape[2:]:
            patch = resample_patch_embed(patch, list(own.shape[2:]))
            state = super().fit_weights({**state, "patch_embed.proj.weight": patch})
        if positions is not None and positions.shape != net.pos_embed.shape:
            prefix = 0 if net.no_embed_class else net.num_prefix_tokens
            grid = list(net.patch_embed.grid_size)
            state["pos_embed"] = resample_abs_pos_embed(positions, grid, num_prefix_tokens=prefix)
        return state


def _replace(x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
    """Put ``token`` where ``mask [B, N]`` is true in the patches ``x [B, h, w, F]``."""
    height, width = x.shape[1:3]
    if token is None:
        raise ValueError("mask was given without mask_token")
    if mask.shape != (len(x), height * width):
        raise ValueError(f"mask has shape {list(mask.shape)}, wanted [{len(x)}, {height * width}] (batch, patches)")
    return torch.where(mask.view(-1, height, width, 1), token.reshape(-1).to(x.dtype), x)


def sincos_positions(grid: tuple[int, int], dim: int, temperature: float = 10000.0) -> Tensor:
    """Fixed positions in two dimensions, as ``build_2d_sincos_position_embedding`` of facebookresearch/moco-v3.

    Args:
        grid: Rows and columns of patches.
        dim: Width F of a token, a multiple of 4.
        temperature: Wavelengths run from ``2 pi`` to ``2 pi * temperature`` patches.

    Returns:
        ``[1, h * w, F]`` row by row: sine and cosine of the row's number, then of the column's, F / 4 wavelengths each.
    """
    if dim % 4:
        raise ValueError(f"sincos positions need a width that is a multiple of 4, got {dim}")
    frequency = temperature ** -(torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))  # [F / 4]
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequency for place in (rows, columns)]  # 2 x [h * w, F / 4]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None]


def use_sincos(net: Any) -> None:
    """In place: fixed sine-cosine positions that are not trained; zeros for the class token, if there is one."""
    positions = sincos_positions(net.patch_embed.grid_size, net.embed_dim)
    prefix = net.pos_embed.shape[1] - positions.shape[1]
    net.pos_embed = nn.Parameter(torch.cat([positions.new_zeros(1, prefix, net.embed_dim), positions], 1), False)


@torch.no_grad()
def use_xavier(net: Any) -> None:
    """In place: MoCo v3's start: Xavier-uniform layers (query, key and value are three matrices), biases 0.

    The patch projection counts 3 input channels whatever it has, as in the authors' ``vits.py``.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            _uniform(module, module.in_features + out)
    patch = net.patch_embed.proj
    _uniform(patch, 3 * math.prod(patch.kernel_size) + net.embed_dim)


def _uniform(layer: nn.Linear | nn.Conv2d, fans: int) -> None:
    bound = math.sqrt(6.0 / fans)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def freeze_patches(net: Any) -> None:
    """In place: the patch projection is not trained: its gradient makes ViTs unstable (MoCo v3, Sec. 4.3)."""
    net.patch_embed.proj.requires_grad_(False)
