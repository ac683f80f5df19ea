"""A table that remembers what was read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class Remembered(Mapping[str, V]):
    """Values by name; ``read`` holds the names that were asked for."""

    def __init__(self, values: Mapping[str, V]) -> None:
        self.values_by_name = dict(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> V:
        self.read.add(name)
        return self.values_by_name[name]

    def __contains__(self, name: object) -> bool:  # asking is not reading
        return name in self.values_by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)
