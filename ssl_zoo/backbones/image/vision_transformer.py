"""Plain vision transformers of timm: class token, patch tokens, positions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers import DropPath
from timm.models import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.backbones.base import Attention, Backbone, Dense, Tokens
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.errors import ConfigError


class ViT(ImageBackbone):
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
        net = cast(Any, self.net)
        if not 1 <= layers <= len(net.blocks):
            raise ValueError(f"layers={layers}: backbone {self.name!r} has 1 to {len(net.blocks)}")
        x, grid = self._embed(view, mask, mask_token)
        prefix = net.num_prefix_tokens
        if keep is not None:
            kept = x[:, prefix:].gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            x = torch.cat([x[:, :prefix], kept], dim=1)
        bias, outputs = _bias(net, grid, keep), []
        for block in net.blocks:
            x = _through(block, x, bias)
            outputs.append(x)
        x = torch.cat([net.norm(output) for output in outputs[-layers:]], dim=-1)
        return Tokens(x[:, 0] if net.has_class_token else None, x[:, prefix:], grid)

    def _embed(
        self, view: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """What enters the first block, ``[B, P + N, F]`` with P prefix tokens, and the grid of its patches."""
        self.check(view)
        net = cast(Any, self.net)
        x = net.patch_embed(view)  # [B, h, w, F]
        grid = (x.shape[1], x.shape[2])
        if mask is not None:
            x = replaced(x, mask, mask_token)
        return net.norm_pre(net.patch_drop(net._pos_embed(x))), grid

    def forward_attention(self, view: Tensor) -> Attention:
        net = cast(Any, self.net)
        x, grid = self._embed(view)
        bias = _bias(net, grid)
        for block in net.blocks[:-1]:
            x = _through(block, x, bias)
        attend, x = net.blocks[-1].attn, net.blocks[-1].norm1(x)
        q, k, _ = attend.qkv(x).unflatten(-1, (3, attend.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, P + N, D]
        scores = attend.q_norm(q) * attend.scale @ attend.k_norm(k).transpose(-2, -1)
        scores = scores if bias is None else scores + bias
        return Attention(scores.softmax(-1), net.num_prefix_tokens, grid)

    @property
    def has_dense(self) -> bool:
        return True

    def forward_dense(self, view: Tensor) -> Dense:
        net = cast(Any, self.net)
        cls, patches, grid = self.forward_tokens(view)
        pooled = patches.mean(1) if cls is None or net.global_pool != "token" else cls
        return Dense(net.fc_norm(pooled), patches, grid)

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
        if positions is not None and net.pos_embed is not None and positions.shape != net.pos_embed.shape:
            prefix = 0 if net.no_embed_class else net.num_prefix_tokens
            grid = list(net.patch_embed.grid_size)
            state["pos_embed"] = resample_abs_pos_embed(positions, grid, num_prefix_tokens=prefix)
        return state


def _bias(net: Any, grid: tuple[int, int], keep: Tensor | None = None) -> Tensor | None:
    """What relative positions add to the scores of attention in every block, if the network has them."""
    relative = getattr(net, "rel_pos_bias", None)
    return None if relative is None else relative(grid, net.num_prefix_tokens, keep)


def _through(block: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    return block(x) if bias is None else block(x, attn_mask=bias)


def replaced(x: Tensor, mask: Tensor, token: Tensor | None, square: int = 1) -> Tensor:
    """Put ``token`` into the squares of ``square`` patches of ``x [B, h, w, F]`` where ``mask [B, N]`` is true."""
    height, width = x.shape[1] // square, x.shape[2] // square
    if token is None:
        raise ValueError("mask was given without mask_token")
    if mask.shape != (len(x), height * width):
        raise ValueError(f"mask has shape {list(mask.shape)}, wanted [{len(x)}, {height * width}] (batch, patches)")
    mask = mask.view(-1, height, width, 1).repeat_interleave(square, 1).repeat_interleave(square, 2)
    return torch.where(mask, token.reshape(-1).to(x.dtype), x)


def sincos_positions(
    grid: tuple[int, int],
    dim: int,
    temperature: float = 10000.0,
    columns_first: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fixed positions in two dimensions, as ``build_2d_sincos_position_embedding`` of facebookresearch/moco-v3.

    Args:
        grid: Rows and columns of patches.
        dim: Width F of a token, a multiple of 4.
        temperature: Wavelengths run from ``2 pi`` to ``2 pi * temperature`` patches.
        columns_first: The first half of the numbers is of the column: ``get_2d_sincos_pos_embed`` of
            facebookresearch/mae and ijepa.
        dtype: Of the result; computed in float64.

    Returns:
        ``[1, h * w, F]`` row by row: sine and cosine of the row's number, then of the column's, F / 4 wavelengths each.
    """
    if dim % 4:
        raise ValueError(f"sincos positions need a width that is a multiple of 4, got {dim}")
    frequency = temperature ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))  # [F / 4]
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")  # rows, columns
    angles = [place.flatten()[:, None] * frequency for place in places]  # 2 x [h * w, F / 4]
    angles = angles[::-1] if columns_first else angles
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].to(dtype)


def use_sincos(net: Any, columns_first: bool = False) -> None:
    """In place: fixed sine-cosine positions that are not trained; zeros for the class token, if there is one."""
    positions = sincos_positions(net.patch_embed.grid_size, net.embed_dim, columns_first=columns_first)
    prefix = net.pos_embed.shape[1] - positions.shape[1]
    net.pos_embed = nn.Parameter(torch.cat([positions.new_zeros(1, prefix, net.embed_dim), positions], 1), False)


class _OwnPositions(VisionTransformer):
    """Positions for views of another size by one of ``INTERPOLATIONS``, or relative ones."""

    interpolation = "timm"

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        height, width = (side // patch for side, patch in zip(x.shape[2:], self.patch_embed.patch_size, strict=True))
        bias = _bias(self, (height, width))
        return super().forward_features(x, attn_mask if bias is None else bias, is_causal)

    def _pos_embed(self, x: Tensor) -> Tensor:
        """``[B, h, w, F]`` -> ``[B, P + h * w, F]``."""
        if self.pos_embed is None or x.ndim != 4:  # none to interpolate; one view size only
            return super()._pos_embed(x)
        prefix = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        first = 0 if self.no_embed_class else self.num_prefix_tokens
        resize = INTERPOLATIONS[self.interpolation]
        positions = resize(cast(Tensor, self.pos_embed), self.patch_embed.grid_size, x.shape[1:3], first)
        x = x.flatten(1, 2)
        x = torch.cat([*prefix, x + positions], 1) if self.no_embed_class else torch.cat([*prefix, x], 1) + positions
        return self.pos_drop(x)


def timm_positions(positions: Tensor, old: Sequence[int], new: Sequence[int], prefix: int) -> Tensor:
    """timm's ``resample_abs_pos_embed``, which rounds float64 to float32 on the way; arguments as the next function's.

    So rounded, gradients that two processes add are not those of one to 1e-10.
    """
    if tuple(new) == tuple(old):
        return positions
    maps = positions[:, prefix:].unflatten(1, tuple(old)).permute(0, 3, 1, 2)  # [1, F, h, w]
    wide = maps if maps.dtype == torch.float64 else maps.float()
    maps = nn.functional.interpolate(wide, size=tuple(new), mode="bicubic", antialias=True).to(maps.dtype)
    return torch.cat([positions[:, :prefix], maps.flatten(2).transpose(1, 2)], 1)


def bicubic_positions(
    positions: Tensor, old: Sequence[int], new: Sequence[int], prefix: int, extra: float = 0.1
) -> Tensor:
    """Positions of another grid as DINO's authors compute them (iBOT and DINOv2 too).

    They add 0.1 patch to the new sides, against rounding, and give ``interpolate`` the quotient instead of the sizes:
    the sampling points shift a little. No anti-aliasing, unlike timm.

    Args:
        positions: ``[1, P + h * w, F]``.
        old: Rows and columns of their grid.
        new: Rows and columns wanted.
        prefix: P, tokens in front of the patches, whose positions stay.
        extra: Patches added to the new sides; 0 in the code of MSN's authors.

    Returns:
        ``[1, P + h' * w', F]``.
    """
    if tuple(new) == tuple(old):
        return positions
    maps = positions[:, prefix:].unflatten(1, tuple(old)).permute(0, 3, 1, 2)  # [1, F, h, w]
    factor = tuple((wanted + extra) / held for wanted, held in zip(new, old, strict=True))
    maps = nn.functional.interpolate(maps, scale_factor=factor, mode="bicubic")
    return torch.cat([positions[:, :prefix], maps.flatten(2).transpose(1, 2)], 1)


INTERPOLATIONS: dict[str, Callable[..., Tensor]] = {
    "timm": timm_positions,
    "dino": bicubic_positions,
    "msn": functools.partial(bicubic_positions, extra=0.0),
}


def use_interpolation(net: Any, rule: str) -> None:
    """In place: positions for views of another size by that rule of ``INTERPOLATIONS``; names and tensors stay."""
    net.__class__ = _OwnPositions
    net.interpolation = rule


def use_uniform_drop_path(net: Any, rate: float) -> None:
    """In place: all blocks drop their branches at the same rate (DINOv2), where timm's grows from 0 with the depth.

    As ``drop_path_uniform`` of facebookresearch/dinov2, which drops an exact share of the rows of a batch; here each
    row draws for itself.
    """
    for block in net.blocks:
        block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)


def freeze_patches(net: Any) -> None:
    """In place: the patch projection is not trained: its gradient makes ViTs unstable (MoCo v3, Sec. 4.3)."""
    net.patch_embed.proj.requires_grad_(False)


def require_class_token(backbone: Backbone, by: str) -> None:
    """Raise the ConfigError that says who needs a class token, if the network has none."""
    if not getattr(backbone.net, "has_class_token", True):
        raise ConfigError(
            f"{by} compares class tokens, and backbone {backbone.name!r} has none; set backbone.class_token=true"
        )
