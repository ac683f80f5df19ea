"""Files that cannot be read: replaced by a rule, reported by name once, counted, and too many of them end the run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import Tensor

from ssl_zoo.data.decode import Shrink
from ssl_zoo.data.source import DamagedFile, Source
from ssl_zoo.errors import ConfigError


@dataclass(frozen=True)
class Sample:
    """An image, the position that it really came from, and what was found damaged on the way: (path, reason)."""

    image: Tensor | None  # uint8 [C, H, W]; None: nothing at all can be read
    index: int
    damaged: list[tuple[str, str]]


def readable(source: Source, index: int, shrink: Shrink | None = None) -> Sample:
    """Sample ``index``, or the next one that can be read: the same in every process and run."""
    damaged: list[tuple[str, str]] = []
    for step in range(len(source)):
        i = (index + step) % len(source)
        try:
            return Sample(source.load(i, shrink), i, damaged)
        except DamagedFile as error:
            damaged.append((error.path, error.reason))
            if len(damaged) > source.damage_limit:
                break
    return Sample(None, index, damaged)


class Damage:
    """The list of damaged files that this process has met.

    Args:
        limit: More different damaged files than this are an error.
        samples: Size of the data set, for the message.
        remedy: What is done about them, for the warning.
    """

    def __init__(self, limit: int, samples: int, remedy: str = "the next readable image takes its place") -> None:
        self.remedy = remedy
        self.limit = limit
        self.samples = samples
        self.files: dict[str, str] = {}

    def add(self, damaged: list[tuple[str, str]]) -> None:
        """Report what is new, one warning a file.

        Raises:
            ConfigError: If there are too many, with the first names and the option that allows more.
        """
        for path, reason in damaged:
            if path not in self.files:
                self.files[path] = reason
                warnings.warn(
                    f"damaged file {len(self.files)}: {path}: {reason}; {self.remedy}",
                    stacklevel=2,
                )
        if len(self.files) > self.limit or len(self.files) >= self.samples:
            names = "\n  ".join(f"{path}: {reason}" for path, reason in list(self.files.items())[:5])
            raise ConfigError(
                f"{len(self.files)} of {self.samples} images cannot be read, and data.source.max_damaged allows "
                f"{self.limit}; the first are\n  {names}\nremove or replace them, or raise data.source.max_damaged"
            )
