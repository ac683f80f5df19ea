"""A published run as it is recorded: what the code of its authors does, field by field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

# Beside the fields: what the run was made for, and the number printed for it.
BESIDE = ("dataset", "expected")


@dataclass(frozen=True)
class Field:
    """One field of a recipe.

    Args:
        tag: Where the value is from; ``paper-mem`` is recalled from a paper, None is unknown.
        released: Whether the code of the run is public.
    """

    value: Any
    source: str | None
    tag: str | None
    note: str | None
    released: bool

    @property
    def soft(self) -> bool:
        """Reported, and never failed on."""
        return self.tag in (None, "paper-mem") or not self.released


class Recorded:
    """A file of recorded fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem.replace("__", "_")  # of the experiment that claims the run

    @cached_property
    def data(self) -> dict[str, Any]:
        found = json.loads(self.path.read_text())
        if found.get("format") != 1:
            raise ValueError(f"{self.path}: format {found.get('format')!r}, only 1 is known")
        return dict(found)

    @property
    def released(self) -> bool:
        return bool(self.data["released"])

    @property
    def third_party(self) -> bool:
        return bool(self.data["third_party"])

    @property
    def dataset(self) -> str:
        return str(self.data["dataset"])

    @property
    def expected(self) -> dict[str, Any]:
        return dict(self.data["expected"])

    @property
    def compose(self) -> list[str] | None:
        """Words of a command that claims the run; None: nothing of ours does."""
        words = self.data["compose"]["overrides"]
        return None if words is None else list(words)

    @cached_property
    def fields(self) -> dict[str, Field]:
        return {
            name: Field(x["value"], x["source"], x["tag"], x.get("note"), self.released)
            for name, x in self.data["fields"].items()
        }

    def value(self, name: str) -> Any:
        return self.data[name] if name in BESIDE else self.fields[name].value

    def soft(self, name: str) -> bool:
        return not self.released if name in BESIDE else self.fields[name].soft

    def __str__(self) -> str:
        return self.name


@cache
def recorded_in(folder: Path) -> list[Recorded]:
    """The runs of a folder."""
    return [Recorded(path) for path in sorted(folder.glob("*__*.json"))]
