"""TS-TCC's context of the past of a series, its predictions of the steps that follow, and its head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.modules.sequence_transformer import SequenceTransformer


class TemporalContrast(nn.Module):
    """The networks of ``TC`` in ``models/TC.py`` of emadeldeen24/TS-TCC@15bdfd6e; tensors have its names.

    Args:
        channels: D of the features along a series; the head has half and a quarter of it.
        timesteps: K, steps that are predicted.
        hidden: Width of the context.
        depth, heads, mlp, dropout: Of the transformer.
    """

    def __init__(
        self, channels: int, timesteps: int, hidden: int, depth: int, heads: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.Wk = nn.ModuleList([nn.Linear(hidden, channels) for _ in range(timesteps)])
        half = channels // 2
        self.projection_head = nn.Sequential(
            nn.Linear(hidden, half), nn.BatchNorm1d(half), nn.ReLU(inplace=True), nn.Linear(half, channels // 4)
        )
        self.seq_transformer = SequenceTransformer(channels, hidden, depth, heads, mlp, dropout)

    def forward(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, t, D]``: predictions of the next K steps ``[B, K, D]``, and the projected context ``[B, D / 4]``."""
        context = self.seq_transformer(past)  # [B, H]
        return torch.stack([predict(context) for predict in self.Wk], 1), self.projection_head(context)
