"""Second moments of embeddings over many batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.losses.precision import autocast_off
from ssl_zoo.modules.queue import Staged


class RunningMoments(Staged):
    """Moving average ``C = beta C + (1 - beta) Z^T Z / N`` of the uncentred second moments (TiCo), zeros at first.

    Args:
        dim: Width D of an embedding.
        momentum: beta, in [0, 1].
    """

    moments: Tensor

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("moments", torch.zeros(dim, dim))

    def forward(self, z: Tensor) -> Tensor:
        """``[N, D]`` rows of the global batch -> ``[D, D]`` with their share, which has gradient; staged."""
        with autocast_off():
            z = z.to(self.moments.dtype)
            mixed = self.momentum * self.moments + (1 - self.momentum) / len(z) * (z.T @ z)
        self.stage(mixed)
        return mixed

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        self.moments.copy_(rows)
