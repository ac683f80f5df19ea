"""The small transformer with which MAE turns tokens back into pixels."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Tokens
from ssl_zoo.backbones.image.starts import start_linear
from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.ranges import Count, Positive, Size


class PixelDecoder(nn.Module):
    """MAE's decoder, https://arxiv.org/abs/2111.06377 Sec. 3; ``forward_decoder`` of models_mae.py.

    Tokens are narrowed, mask tokens take the places of the patches that were dropped, and fixed sine-cosine positions
    are added to all; the class token keeps its place without a position.

    Args:
        in_features: Width F of the encoder's tokens.
        patch_size: Side p of a patch in pixels.
        channels: C of the images.
        grid: Rows and columns of the usual view, whose positions are kept; those of other views are made anew.
        width: D of the decoder's tokens.
        depth: Blocks.
        heads: Of each block; must divide ``width``.
        mlp_ratio: Of the hidden layers in a block to ``width``.
    """

    def __init__(
        self,
        in_features: int,
        patch_size: int,
        channels: int,
        grid: tuple[int, int],
        width: Size = 512,
        depth: Count = 8,
        heads: Size = 16,
        mlp_ratio: Positive = 4.0,
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        if width % 4 or width % heads:
            raise ValueError(f"decoder: width={width} must be a multiple of 4 (positions) and of heads={heads}")
        norm: Any = functools.partial(nn.LayerNorm, eps=1e-6)
        self.grid = grid
        self.embed = nn.Linear(in_features, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        blocks = (Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(width)
        self.pred = nn.Linear(width, patch_size**2 * channels)
        # Not in the state: a function of the sizes.
        self.register_buffer("positions", sincos_positions(grid, width, columns_first=True), persistent=False)
        start_linear(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tokens, restore: Tensor) -> Tensor:
        """Predict all patches.

        Args:
            tokens: ``patches [B, K, F]`` that were kept.
            restore: ``[B, N]`` place of each patch in the sequence (kept, removed), from
                :func:`ssl_zoo.modules.masking.random.random_masking`.

        Returns:
            ``[B, N, p * p * C]``.
        """
        kept = self.embed(tokens.patches)                                            # [B, K, D]
        hidden = self.mask_token.expand(len(kept), restore.shape[1] - kept.shape[1], -1)
        places = restore.unsqueeze(-1).expand(-1, -1, kept.shape[2])
        x = torch.cat([kept, hidden.to(kept.dtype)], 1).gather(1, places)            # [B, N, D]
        x = x + self.places(tokens.grid)
        if tokens.cls is not None:
            x = torch.cat([self.embed(tokens.cls).unsqueeze(1), x], 1)               # [B, 1 + N, D]
        return self.pred(self.norm(self.blocks(x)))[:, -restore.shape[1]:]           # [B, N, p * p * C]

    def places(self, grid: tuple[int, int]) -> Tensor:
        positions = self.get_buffer("positions")
        if grid == self.grid:
            return positions
        return sincos_positions(grid, positions.shape[2], columns_first=True).to(positions)

