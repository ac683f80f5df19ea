"""Fixed random targets on the unit sphere, and which sample has which of them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ssl_zoo.distributed import broadcast_object, gather, is_main, own_rows
from ssl_zoo.losses.precision import promoted
from ssl_zoo.modules.queue import Staged

Scope = Literal["global", "rank"]


class NoiseTargets(Staged):
    """Targets and assignments of NAT, https://arxiv.org/abs/1704.05310 (Sec. 3.3): buffers, which no step trains.

    Targets are normal numbers brought to length 1, and a random permutation assigns them: both come from torch's own
    generator, which the run has seeded. So make them after the networks. An exchange is written after the backward
    pass of its batch.

    Args:
        samples: N, of the training set.
        dim: Width of a target.
        generator: Of the numbers; None: torch's own.
    """

    targets: Tensor  # [N, D]
    assigned: Tensor  # [N] int64: which target each sample has, a permutation

    def __init__(self, samples: int, dim: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("targets", F.normalize(torch.randn(samples, dim, generator=generator), dim=1))
        self.register_buffer("assigned", torch.randperm(samples, generator=generator))

    def of(self, index: Tensor) -> Tensor:
        """``[B]`` targets that samples have: their numbers."""
        return self.assigned[index]

    def stage_exchange(self, index: Tensor, assigned: Tensor) -> None:
        """Let the samples ``index`` have the targets ``assigned``, both ``[N]`` of the global batch."""
        self.stage(torch.stack([index, assigned]))

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        index, assigned = rows
        self.assigned.index_copy_(0, index, assigned)


@torch.no_grad()
def best_assignment(scores: Tensor) -> Tensor:
    """For each row the column that it gets, each column once, so that the sum of their scores is largest: ``[B]``.

    The authors' solver (hungarian.c) cuts scores to 100,000 steps; this one (scipy) is exact.

    Args:
        scores: ``[B, B]``.
    """
    columns = linear_sum_assignment(promoted(scores).cpu().numpy(), maximize=True)[1]
    return torch.from_numpy(columns).to(scores.device)


@torch.no_grad()
def exchanged(z: Tensor, targets: NoiseTargets, index: Tensor, scope: Scope = "global") -> Tensor:
    """Numbers ``[W * B]`` of the targets that suit the global batch best, a permutation of those that it has.

    Args:
        z: ``[W * B, D]`` unit outputs of all processes.
        targets: Of the training set.
        index: ``[W * B]`` samples.
        scope: ``global``: exchanged among all of them, found by one process and told to the others; ``rank``: among the
            rows of each process, which finds them alone.
    """
    if scope == "global":
        held = targets.of(index)
        scores = z @ targets.targets[held].to(z.dtype).T
        return held[broadcast_object(best_assignment(scores).cpu() if is_main() else None).to(held.device)]
    own = own_rows(index)
    held = targets.of(own)
    return gather(held[best_assignment(own_rows(z) @ targets.targets[held].to(z.dtype).T)])
