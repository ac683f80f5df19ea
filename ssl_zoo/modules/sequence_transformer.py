"""A small transformer that sums up the beginning of a sequence: TS-TCC's ``models/attention.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention over ``[B, L, D]``; scores are divided by the root of D, not of the width of a head."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, 2))
        out = F.scaled_dot_product_attention(q, k, v, scale=x.shape[2] ** -0.5)  # [B, H, L, D / H]
        return self.to_out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers at each step."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)]
        self.net = nn.Sequential(*layers, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    """A layer norm before ``fn``."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """``fn`` beside what it gets."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class Transformer(nn.Module):
    """Attention and feed-forward layers in turn, without a last norm."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()

        def block() -> nn.Sequential:
            parts = Attention(width, heads, dropout), FeedForward(width, hidden, dropout)
            return nn.Sequential(*(Residual(PreNorm(width, part)) for part in parts))

        self.layers = nn.Sequential(*(block() for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SequenceTransformer(nn.Module):
    """``Seq_Transformer``: ``[B, L, C]`` to what the class token has gathered ``[B, D]``; nothing says where a step is.

    Tensors have the names of emadeldeen24/TS-TCC@15bdfd6e.

    Args:
        channels: C.
        width: D.
        depth, heads: Of the transformer; ``heads`` divide D.
        hidden: Of its feed-forward layers.
        dropout: Of both, in training.

    Raises:
        ValueError: If they do not.
    """

    def __init__(
        self, channels: int, width: int, depth: int = 4, heads: int = 4, hidden: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}; try {max(width // heads, 1) * heads}")
        self.patch_to_embedding = nn.Linear(channels, width)
        self.c_token = nn.Parameter(torch.randn(1, 1, width))
        self.transformer = Transformer(width, depth, heads, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_to_embedding(x)
        return self.transformer(torch.cat([self.c_token.expand(len(x), -1, -1), x], 1))[:, 0]
