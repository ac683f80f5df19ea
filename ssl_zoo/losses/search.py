"""Which rows are nearest to which, told in float32 or better whatever precision the networks run in."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@torch.no_grad()
@full_precision
def most_similar(q: Tensor, keys: Tensor) -> Tensor:
    """For each query the key with the largest product: ``[B, D]`` and ``[K, D]`` unit rows to ``[B]`` int64."""
    return (q @ keys.T).argmax(1)


@torch.no_grad()
@full_precision
def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances ``[..., N, M]`` of the rows ``[..., N, D]`` and ``[..., M, D]``."""
    return torch.cdist(a, b)
