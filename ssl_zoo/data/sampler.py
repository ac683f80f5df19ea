"""The order of samples: a pure function of (seed, epoch), cut into global micro-batches that ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_zoo.data.splits import seed_of
from ssl_zoo.errors import ConfigError


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The permutation of ``0 .. n - 1`` in which an epoch reads its samples: ``[n]`` int64."""
    generator = torch.Generator().manual_seed(seed_of("order", seed, epoch))
    return torch.randperm(n, generator=generator)


@dataclass(frozen=True)
class Request:
    """One rank's rows of one global micro-batch, in plain numbers because it travels to worker processes."""

    epoch: int
    micro: int  # position of the micro-batch in the epoch
    slot: int  # of the first row: its position in the epoch's global order; the other rows follow it
    index: list[int]


class Plan:
    """Which rows this rank reads when; keeps no position.

    Global micro-batch ``i`` of ``b`` rows is ``order[i * b : (i + 1) * b]``; rank ``r`` of ``W`` owns its contiguous
    rows ``[r * b / W, (r + 1) * b / W)``. The tail that fills no optimizer step is dropped.

    Args:
        samples: Size of the training set.
        batch_size: Samples per optimizer step, over all ranks and micro-batches.
        seed: Of the order.
        accumulate: Micro-batches per optimizer step.
        rank, world: This process, of how many.
        device: Where the order is kept: where the samples are.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        parts = accumulate * world
        if batch_size % parts:
            fits = -(-batch_size // parts) * parts
            raise ConfigError(
                f"data.batch_size={batch_size} (samples per step over all devices) does not divide by "
                f"trainer.accumulate={accumulate} x {world} processes; try data.batch_size={fits}"
            )
        if samples < batch_size:
            raise ConfigError(
                f"the training set has {samples} samples, fewer than data.batch_size={batch_size}: not one step; "
                f"try data.batch_size={_power_of_two(samples)}"
            )
        self.samples = samples
        self.seed = seed
        self.rows = batch_size // accumulate  # of a global micro-batch
        self.length = samples // batch_size * accumulate
        share = self.rows // world
        self.first, self.share = rank * share, share
        self.device = torch.device(device)
        self._order: tuple[int, Tensor] | None = None

    def index(self, epoch: int, micro: int) -> tuple[Tensor, int]:
        """This rank's sample positions ``[share]`` of a micro-batch, and the slot of the first."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, order(self.seed, epoch, self.samples).to(self.device))
        slot = micro * self.rows + self.first
        return self._order[1][slot : slot + self.share], slot

    def requests(self, epoch: int, micro: int) -> Iterator[Request]:
        """All micro-batches from a position on, through all epochs: workers go on while the trainer evaluates."""
        while True:
            for i in range(micro, self.length):
                index, slot = self.index(epoch, i)
                yield Request(epoch, i, slot, index.tolist())
            epoch, micro = epoch + 1, 0


def _power_of_two(n: int) -> int:
    return 1 << (max(n, 1).bit_length() - 1)
