"""Balanced targets: the same however the rows lie on processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.distributed import rank, world_size
from ssl_zoo.losses.clustering import sinkhorn
from ssl_zoo.modules.balance import balanced
from tests.pool import GlooPool


def scores() -> Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def own() -> Tensor:
    """Five of the rows on the first of two processes, two on the second."""
    rows = scores() if world_size() == 1 else scores().split([5, 2])[rank()]
    return balanced(rows, 0.07, 3)


def test_one_process_is_sinkhorn() -> None:
    torch.testing.assert_close(own(), sinkhorn(scores(), 0.07, 3))


def test_two_processes_with_unequal_numbers_of_rows_are_one(pool: GlooPool) -> None:
    torch.testing.assert_close(torch.cat(pool.run(own)), own(), rtol=1e-12, atol=1e-12)
