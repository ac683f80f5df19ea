"""A narrow transformer that predicts the tokens of hidden places from those that were seen."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.ranges import Count, Positive, Size


@lru_cache(maxsize=8)
def fixed_positions(grid: tuple[int, int], dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[h * w, dim]``: sine-cosine positions, columns first, rounded to float32 as the authors' are."""
    return sincos_positions(grid, dim, columns_first=True)[0].to(device, dtype)


class TokenPredictor(nn.Module):
    """Predictor of I-JEPA, https://arxiv.org/abs/2301.08243 (App. A.1); names as in the authors' code.

    As ``VisionTransformerPredictor`` of facebookresearch/ijepa@52c1ae9: every target block is a sequence of its own,
    the context followed by mask tokens at the places to predict. Linear layers start from normal numbers of deviation
    0.02, because the authors' rescaling by depth is undone by their own ``init_model``.

    Args:
        in_features: Width F of the encoder's tokens.
        width: Of the predictor, a multiple of 4 and of ``heads``.
        depth: Blocks; 6 beside ViT-B and -L, 12 beside ViT-H.
        heads: The authors take the encoder's.
        mlp_ratio: Hidden width of the blocks' MLPs over ``width``.
    """

    def __init__(
        self, in_features: int, width: Size = 384, depth: Count = 6, heads: Size = 12, mlp_ratio: Positive = 4.0
    ) -> None:
        super().__init__()
        if width % heads or width % 4:
            raise ValueError(f"predictor.width={width} wants a multiple of 4 and of predictor.heads={heads}")
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.predictor_embed = nn.Linear(in_features, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        blocks = [Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)]
        self.predictor_blocks = nn.ModuleList(blocks)
        self.predictor_norm = norm(width)
        self.predictor_proj = nn.Linear(width, in_features)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, context: Tensor, targets: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predicted tokens at the places ``targets``, from the tokens at the places ``context``.

        Args:
            tokens: ``[E * B, K, F]``, one context block after another.
            context: ``[E, B, K]`` int64, places of the tokens.
            targets: ``[P, B, T]`` int64.
            grid: Rows and columns of the places.

        Returns:
            ``[P * E * B, T, F]``: for each target block, the predictions from each context block.
        """
        x = self.predictor_embed(tokens)
        positions = fixed_positions(grid, x.shape[-1], self.mask_token.dtype, x.device)
        seen = x + positions[context.flatten(0, 1)]  # [E * B, K, D]
        repeated = targets.unsqueeze(1).expand(-1, len(context), -1, -1).flatten(0, 2)  # [P * E * B, T]
        asked = self.mask_token + positions[repeated]  # [P * E * B, T, D]
        x = torch.cat([seen.repeat(len(targets), 1, 1), asked.to(seen.dtype)], dim=1)
        for block in self.predictor_blocks:
            x = block(x)
        return self.predictor_proj(self.predictor_norm(x[:, context.shape[-1] :]))
