"""Files that cannot be read: replaced by a rule, told together, counted, and too many of them end the run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_zoo import files
from ssl_zoo.data.source import DamagedFile, Source
from ssl_zoo.errors import ConfigError

SHOWN = 3  # files that a line names


@dataclass(frozen=True)
class Loaded:
    """A sample, the position that it really came from, and what was found damaged on the way: (path, reason)."""

    sample: Any | None  # None: nothing at all can be read
    index: int
    damaged: list[tuple[str, str]]


def readable(source: Source, index: int, hint: Any = None) -> Loaded:
    """Sample ``index``, or the next one that can be read: the same in every process and run.

    Args:
        hint: What the views tell the source about what they will do to the sample; None: nothing.
    """
    damaged: list[tuple[str, str]] = []
    told = () if hint is None else (hint,)
    for step in range(len(source)):
        i = (index + step) % len(source)
        try:
            return Loaded(source.load(i, *told), i, damaged)
        except DamagedFile as error:
            damaged.append((error.path, error.reason))
            if len(damaged) > source.damage_limit:
                break
    return Loaded(None, index, damaged)


class Damage:
    """The list of damaged files that this process has met.

    Args:
        limit: More different damaged files than this are an error.
        samples: Size of the data set, for the message.
        remedy: What is done about them, for the line.
    """

    def __init__(self, limit: int, samples: int, remedy: str = "the next readable samples take their places") -> None:
        self.remedy = remedy
        self.limit = limit
        self.samples = samples
        self.files: dict[str, str] = {}  # path -> reason
        self.listed: Path | None = None  # where all of them are written; None: nowhere
        self._told = 0

    def add(self, damaged: list[tuple[str, str]]) -> None:
        """Note what is new; :meth:`tell` says it.

        Raises:
            ConfigError: If there are too many, with the first names and the option that allows more.
        """
        for path, reason in damaged:
            self.files.setdefault(path, reason)
        if len(self.files) > self.limit or len(self.files) >= self.samples:
            self._told = len(self.files)
            names = "\n  ".join(f"{path}: {reason}" for path, reason in list(self.files.items())[:5])
            raise ConfigError(
                f"{len(self.files)} of {self.samples} samples cannot be read, and data.source.max_damaged allows "
                f"{self.limit}; the first are\n  {names}\nremove or replace them, or raise data.source.max_damaged"
            )

    def tell(self) -> None:
        """One warning for all that is new since the last call: how many, the first names, where the list is."""
        new = list(self.files.items())[self._told :]
        if not new:
            return
        kind = "more damaged" if self._told else "damaged"
        self._told = len(self.files)
        names = "; ".join(f"{path}: {reason}" for path, reason in new[:SHOWN])
        rest = f"; and {len(new) - SHOWN:,} more" if len(new) > SHOWN else ""
        where = f" (all in {self.listed})" if self._written() else ""
        warnings.warn(
            f"{kind} files: {len(new):,} of {self.samples:,}, {self.remedy}: {names}{rest}{where}", stacklevel=2
        )

    def _written(self) -> bool:
        """Write the list, with what an earlier piece of the run has met; False: there is no place, or it is full."""
        if self.listed is None:
            return False
        lines = [f"{path}: {reason}" for path, reason in self.files.items()]
        try:
            before = self.listed.read_text(encoding="utf-8").splitlines() if self.listed.is_file() else []
            files.write(self.listed, "".join(f"{line}\n" for line in dict.fromkeys([*before, *lines])))
        except (OSError, ValueError):
            return False
        return True
