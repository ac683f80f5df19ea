"""What every data set looks like to the loaders: samples by position, of whatever kind.

A sample is what its source says it is. Images have further words: :mod:`ssl_zoo.data.image.source`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ssl_zoo.data.fingerprint import digest, numbers, of
from ssl_zoo.samples import concat, nbytes

RESIDENT = 0.25  # share of the free memory of a GPU that a data set may take


class DamagedFile(Exception):
    """A file that cannot be decoded; loaders replace it, report it once and count it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both as arguments, so that the exception can be pickled in a worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Shards(NamedTuple):
    """Which samples are stored together, for a source that is read well only a few shards at a time.

    Args:
        number: ``[N]`` integer: the shard of each sample; any numbering.
        lanes: A global micro-batch is gathered from at most so many places of an epoch's sequence of shards.
        window: So many shards are mixed in each place.
    """

    number: Tensor
    lanes: int
    window: int


class Shares(NamedTuple):
    """How often samples of several roots are drawn.

    Args:
        number: ``[N]`` int64: the root of each sample.
        share: Of an epoch, for each root, in proportion; above 0.
    """

    number: Tensor
    share: tuple[float, ...]


class Source(Protocol):
    """Samples ``0 .. len - 1``; ``labels`` are ``[N]`` int64 with -1 for none, or None for an unlabelled set.

    What a source may have besides: ``shards`` (:class:`Shards`), where its samples are not equally near; without, or
    with None, epochs run through all samples in any order. ``shares`` (:class:`Shares`), to be drawn from in these
    proportions. ``modality``, the kind of its samples: views of another kind are refused. ``decisions``, what it
    decided about its files, a line each. ``baseline``: a batch of samples to ``[B, F]``, numbers that a trained network
    must beat. ``resolved``, what its settings that say auto have become.
    """

    labels: Tensor | None
    classes: list[str] | None
    in_memory: bool  # True: fetch() is cheap and batched; False: load() decodes a file
    damage_limit: int  # so many different damaged files end the run

    @property
    def facts(self) -> Mapping[str, Any]:
        """What networks and operations must know of a sample, by name: plain values."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Any:
        """A batch of the samples ``index`` ``[B]``, on the device where the source lives; in-memory sources only."""
        ...

    def load(self, index: int, hint: Any = None) -> Any:
        """One sample, on the CPU; ``hint`` is what :meth:`ViewPipeline.hint` gives, never given if that is None.

        Raises:
            DamagedFile: If the sample cannot be decoded.
        """
        ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """A batch of samples as :meth:`load` gives them: a tensor, or a :class:`ssl_zoo.samples.View`."""
        ...

    def to(self, device: torch.device) -> Source:
        """The same samples, resident on ``device``; a source of files stays where it is."""
        ...

    def fingerprint(self) -> str:
        """Hex digits that change when the samples or their labels do (:mod:`ssl_zoo.data.fingerprint`).

        The same in every process and on every machine, wherever the data lies, and found in about a second at any
        size: a run that resumes compares it. Files that are gone count as changed and raise nothing. A source without
        this method gets one from its number of samples, its labels and, in memory, some of its rows.
        """
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
        self.in_memory = source.in_memory
        self.damage_limit = source.damage_limit
        own = None if source.labels is None else source.labels[positions]
        self.labels = own if labels is None else labels
        shards: Shards | None = getattr(source, "shards", None)
        self.shards = None if shards is None else shards._replace(number=shards.number[positions])
        shares: Shares | None = getattr(source, "shares", None)
        self.shares = None if shares is None else shares._replace(number=shares.number[positions])

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, rows: Tensor) -> Part:
        """Some of these samples, in this order, repeated where ``rows`` ``[n]`` repeats."""
        return Part(self.source, self.positions[rows], None if self.labels is None else self.labels[rows])

    @property
    def facts(self) -> Mapping[str, Any]:
        return getattr(self.source, "facts", {})

    @property
    def modality(self) -> str | None:
        return getattr(self.source, "modality", None)

    def fetch(self, index: Tensor) -> Any:
        return self.source.fetch(self.positions[index.to(self.positions.device)])

    def load(self, index: int, hint: Any = None) -> Any:
        position = int(self.positions[index])
        return self.source.load(position) if hint is None else self.source.load(position, hint)

    def collate(self, samples: Sequence[Any]) -> Any:
        made = getattr(self.source, "collate", None)
        return concat([sample[None] for sample in samples]) if made is None else made(samples)

    def fingerprint(self) -> str:
        return digest("part", of(self.source), numbers(self.positions), numbers(self.labels))

    def to(self, device: torch.device) -> Part:
        # The positions go along: a batch is then indexed without asking the CPU.
        labels = None if self.labels is None else self.labels.to(device)
        moved = Part(self.source.to(device), self.positions)
        moved.positions, moved.labels = self.positions.to(device), labels
        return moved

    def resident(self, device: torch.device) -> Part:
        """The same on a GPU, if what lies in memory takes little of what is free there; else as it is."""
        if device.type != "cuda":
            return self
        size = len(self.source) * nbytes(self.fetch(torch.zeros(1, dtype=torch.int64)))
        return self.to(device) if size <= RESIDENT * torch.cuda.mem_get_info(device)[0] else self


def origin(source: Source) -> Source:
    """Where the samples of a source, or of a part of one, really come from: it may know more of them."""
    return origin(source.source) if isinstance(source, Part) else source


def located(source: Source, index: int) -> int:
    """The position in :func:`origin` of sample ``index``."""
    return located(source.source, int(source.positions[index])) if isinstance(source, Part) else index
