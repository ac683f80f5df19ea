"""Running mean of a teacher's outputs, subtracted from them so that no output wins for all samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.distributed import all_reduce_sum_
from ssl_zoo.modules.queue import Staged


class Centre(Staged):
    """Eq. 4 of DINO, https://arxiv.org/abs/2104.14294: ``c = m c + (1 - m) mean(rows)`` over the global batch.

    Reading (``value``) and writing (:meth:`update`) are separate: a write is staged until this micro-batch's backward
    pass is done, so a batch is centred by those before it (``DINOLoss`` of facebookresearch/dino@7c446df).

    Args:
        dim: Width K of the outputs.
        momentum: m, in [0, 1).
    """

    value: Tensor  # [1, K]

    def __init__(self, dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(1, dim))

    @torch.no_grad()
    def update(self, *rows: Tensor) -> None:
        """Stage the mean over all rows of all ranks.

        Args:
            rows: ``[..., K]`` teacher outputs, one tensor per crop or all in one; ranks may hold different numbers of
                rows. Every rank must call.
        """
        flat = [part.reshape(-1, part.shape[-1]).to(self.value.dtype) for part in rows]
        count = sum(len(part) for part in flat)
        total = torch.stack([part.sum(0) for part in flat]).sum(0)  # [K]
        both = all_reduce_sum_(torch.cat([total, total.new_full((1,), count)]))  # one message: sums and their count
        self.stage(both[:-1] / both[-1].clamp(min=1))

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        self.value.mul_(self.momentum).add_(rows, alpha=1 - self.momentum)
