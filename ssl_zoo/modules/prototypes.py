"""Trainable cluster centres."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.losses.precision import full_precision, promoted
from ssl_zoo.shards import assign, own


class Prototypes(nn.Linear):
    """Similarities to ``count`` trainable vectors: ``C`` of SwAV, https://arxiv.org/abs/2006.09882 (Sec. 3.1).

    Args:
        in_features: Width of the unit embeddings ``[B, in_features]``.
        count: Number of prototypes; ``weight`` is ``[count, in_features]``, without bias.
    """

    def __init__(self, in_features: int, count: int) -> None:
        super().__init__(in_features, count, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, count]`` scores, never in half precision: they are divided by 0.05 before an exponential."""
        return _scores(input, self.weight)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Put every prototype back on the unit sphere, in place: before each forward (main_swav.py, ``train``)."""
        (rows,) = own([self.weight])
        rows.copy_(F.normalize(promoted(rows), dim=1))

    def replace(self, rows: Tensor) -> None:
        """Put other vectors in their place: ``rows`` ``[count, in_features]``, the same on every process."""
        assign(self.weight, rows)


@full_precision
def _scores(input: Tensor, weight: Tensor) -> Tensor:
    return F.linear(input.to(weight.dtype), weight)
