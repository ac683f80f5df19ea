"""What every data set looks like to the loaders: samples by position, as ``uint8`` images."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class DamagedFile(Exception):
    """A file that cannot be decoded; loaders replace it, report it once and count it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both as arguments, so that the exception can be pickled in a worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Source(Protocol):
    """Samples ``0 .. len - 1``; ``labels`` are ``[N]`` int64 with -1 for none, or None for an unlabelled set."""

    labels: Tensor | None
    classes: list[str] | None
    channels: int
    image_size: int | None  # None: images differ
    in_memory: bool  # True: fetch() is cheap and batched; False: load() decodes a file
    damage_limit: int  # so many different damaged files end the run

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """``uint8 [B, C, H, W]``, on the device where the source lives; in-memory sources only."""
        ...

    def load(self, index: int) -> Tensor:
        """``uint8 [C, H, W]`` on the CPU; raises :class:`DamagedFile`."""
        ...

    def to(self, device: torch.device) -> Source:
        """The same samples, resident on ``device``; a source of files stays where it is."""
        ...


class Splits(NamedTuple):
    """What a configured source gives."""

    train: Source
    val: Source | None


class Part:
    """Some samples of a source in a given order: a subset, a held-out part, or fewer labels.

    Args:
        source: Where the samples are.
        positions: ``[n]`` int64 positions in ``source``; row ``i`` of the part is sample ``positions[i]``.
        labels: ``[n]`` labels instead of the source's.
    """

    def __init__(self, source: Source, positions: Tensor, labels: Tensor | None = None) -> None:
        self.source = source
        self.positions = positions
        self.classes = source.classes
        self.channels = source.channels
        self.image_size = source.image_size
        self.in_memory = source.in_memory
        self.damage_limit = source.damage_limit
        own = None if source.labels is None else source.labels[positions]
        self.labels = own if labels is None else labels

    def __len__(self) -> int:
        return len(self.positions)

    def fetch(self, index: Tensor) -> Tensor:
        return self.source.fetch(self.positions[index.to(self.positions.device)])

    def load(self, index: int) -> Tensor:
        return self.source.load(int(self.positions[index]))

    def to(self, device: torch.device) -> Part:
        # The positions go along: a batch is then indexed without asking the CPU.
        labels = None if self.labels is None else self.labels.to(device)
        moved = Part(self.source.to(device), self.positions)
        moved.positions, moved.labels = self.positions.to(device), labels
        return moved
