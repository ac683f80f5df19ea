"""From names of sound files to sources: one rate, and memory or workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ssl_zoo.data.audio.decode import Reader, rate_of
from ssl_zoo.data.audio.source import Files, Recordings
from ssl_zoo.data.fingerprint import spread
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.errors import ConfigError

SMALL = 64 << 20  # bytes of files that are read into memory at the start
LOOKED_AT = 1024  # files whose rate is looked at before anything is built
SHOWN = 3  # names that a line says


@dataclass(frozen=True)
class Listed:
    """Sound files of a part of the data.

    Args:
        root: That ``paths`` are relative to.
        paths: In the order of the samples.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Names of the labels.
    """

    root: Path
    paths: list[str]
    labels: Tensor | None
    classes: list[str] | None

    def full(self, index: int) -> str:
        return str(self.root / self.paths[index])


@dataclass(frozen=True)
class Settings:
    """What ``data.source`` says of the files.

    Args:
        sample_rate: In Hz; None: that of the first file that can be read.
        channels: 1: the mean of what a file has.
        resample: Whether files of other rates are resampled.
        memory: Whether all is read at the start; auto: files of 64 MiB together.
        max_damaged: Files that may be damaged; None: the larger of 100 and 1 %.
    """

    sample_rate: int | None = None
    channels: int = 1
    resample: bool = False
    memory: bool | Literal["auto"] = "auto"
    max_damaged: int | None = None


def sources(train: Listed, val: Listed | None, settings: Settings, decisions: Sequence[str] = ()) -> Splits:
    """Both parts of a data set of sound files.

    Raises:
        ConfigError: If a file has another rate, which names it; if too many files are damaged.
    """
    reader = Reader(_rate(train, settings), settings.channels, settings.resample)
    for part in (train, val):
        _check_rates(part, reader)
    total = sum(_bytes(part) for part in (train, val))
    inside = total <= SMALL if settings.memory == "auto" else settings.memory
    make = _in_memory if inside else _files
    made = make(train, reader, _limit(train, settings), decisions)
    return Splits(made, None if val is None else make(val, reader, _limit(val, settings), ()))


def _limit(part: Listed, settings: Settings) -> int:
    return max(100, len(part.paths) // 100) if settings.max_damaged is None else settings.max_damaged


def _rate(part: Listed, settings: Settings) -> int:
    if settings.sample_rate is not None:
        return settings.sample_rate
    reasons = []
    for i in range(min(len(part.paths), LOOKED_AT)):
        try:
            return rate_of(part.full(i))
        except DamagedFile as error:
            reasons.append(str(error))
    raise ConfigError(f"data: none of {len(reasons)} sound files can be read; the first is {reasons[0]}")


def _check_rates(part: Listed | None, reader: Reader) -> None:
    """Raise for a file of another rate among those that are looked at."""
    rows = [] if part is None or reader.resample else spread(len(part.paths), LOOKED_AT).tolist()
    for i in rows:
        assert part is not None
        try:
            rate = rate_of(part.full(i))
        except DamagedFile:
            continue  # told when it is met
        if rate != reader.sample_rate:
            raise ConfigError(f"{part.full(i)}: {reader.other_rate(rate)}, data.source.sample_rate=HZ says which")


def _bytes(part: Listed | None) -> int:
    names = [] if part is None else [part.full(i) for i in range(len(part.paths))]
    return sum(os.stat(name).st_size for name in names if os.path.exists(name))


def _files(part: Listed, reader: Reader, limit: int, decisions: Sequence[str]) -> Files:
    paths = [part.full(i) for i in range(len(part.paths))]
    return Files(paths, part.paths, part.labels, part.classes, reader, limit, decisions)


def _in_memory(part: Listed, reader: Reader, limit: int, decisions: Sequence[str]) -> Recordings:
    """What can be read; what cannot is left out, counted and named."""
    waves, kept, damaged = [], [], []
    for i in range(len(part.paths)):
        try:
            waves.append(reader(part.full(i)))
            kept.append(i)
        except DamagedFile as error:
            damaged.append(str(error))
    if len(damaged) > limit or not waves:
        first = "\n  ".join(damaged[:5])
        raise ConfigError(
            f"{len(damaged)} of {len(part.paths)} sound files cannot be read, and data.source.max_damaged allows "
            f"{limit}; the first are\n  {first}\nremove or replace them, or raise data.source.max_damaged"
        )
    labels = None if part.labels is None else part.labels[torch.tensor(kept)]
    told = [*decisions, *([_left_out(damaged, len(part.paths))] if damaged else [])]
    return Recordings(waves, labels, part.classes, reader.sample_rate, decisions=told)


def _left_out(damaged: list[str], files: int) -> str:
    more = f"; and {len(damaged) - SHOWN:,} more" if len(damaged) > SHOWN else ""
    return f"left out: {len(damaged):,} of {files:,} damaged files ({'; '.join(damaged[:SHOWN])}{more})"
