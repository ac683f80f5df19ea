"""How the columns of a table become numbers: fitted on the training rows, kept in the checkpoint as a line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ssl_zoo.errors import ConfigError, nearest

Numbers = Literal["standard", "minmax", "none"]
LISTED = 20  # so many categories a message lists


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: In the head of the file.
        values: Its categories in order; None: it holds numbers.
        offset, scale: A number x is given to networks as ``(x - offset) / scale``.
    """

    name: str
    values: tuple[str, ...] | None = None
    offset: float = 0.0
    scale: float = 1.0

    @property
    def inputs(self) -> int:
        """Of a network: one for a number, one for each category."""
        return 1 if self.values is None else len(self.values)

    def number(self, cell: str) -> float:
        """A cell that is not empty as a number: scaled, or the position of its category.

        Raises:
            ValueError: With what is wrong with it; a category that is not known is a :class:`LookupError`.
        """
        if self.values is not None:
            return float(self._position(cell))
        found = parsed(cell)
        if found is None:
            raise ValueError(f"{self.name} is {cell!r}, which is no number")
        return (found - self.offset) / self.scale

    def _position(self, cell: str) -> int:
        assert self.values is not None
        if cell in self.values:
            return self.values.index(cell)
        hint = nearest(cell, self.values)
        few = hint if hint.startswith("did") or len(self.values) <= LISTED else f"there are {len(self.values):,} others"
        raise LookupError(f"{self.name} is {cell!r}, which no training row has: {few}")

    def text(self, value: float) -> str:
        """A number as :meth:`number` gives it as a person reads it; ``?`` where it is missing."""
        if math.isnan(value):
            return "?"
        return self.values[round(value)] if self.values is not None else f"{value * self.scale + self.offset:.4g}"


def parsed(cell: str) -> float | None:
    """A finite number, or None."""
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def fit_numbers(name: str, values: Sequence[float], numbers: Numbers) -> Column:
    """A column of numbers: mean 0 and deviation 1 (``standard``), within 0 and 1 (``minmax``), or as it is.

    A constant column is only shifted.
    """
    known = np.asarray(values, dtype=np.float64)
    if numbers == "none" or not len(known):
        return Column(name)
    offset = float(known.mean() if numbers == "standard" else known.min())
    scale = float(known.std() if numbers == "standard" else known.max() - known.min())
    # A column of one number has a deviation of rounding errors.
    return Column(name, None, offset, scale if scale > 1e-12 * max(1.0, float(np.abs(known).max())) else 1.0)


def to_json(columns: Sequence[Column]) -> str:
    """The columns as one line."""
    return json.dumps([
        {"name": c.name, "values": list(c.values)} if c.values is not None
        else {"name": c.name, "offset": c.offset, "scale": c.scale}
        for c in columns
    ])  # fmt: skip


def from_json(text: str) -> tuple[Column, ...]:
    """The columns of :func:`to_json`.

    Raises:
        ConfigError: If that is none.
    """
    try:
        return tuple(_column(entry) for entry in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"data.source.encoding is no list of columns as a run keeps it ({error}); wanted auto, or the encoding in "
            "the config.yaml of a run"
        ) from None


def _column(entry: Mapping[str, Any]) -> Column:
    if "values" in entry:
        return Column(str(entry["name"]), tuple(map(str, entry["values"])))
    offset, scale = float(entry["offset"]), float(entry["scale"])
    if not (math.isfinite(offset) and math.isfinite(scale) and scale > 0):
        raise ValueError(f"column {entry['name']} has offset {offset:g} and scale {scale:g}")
    return Column(str(entry["name"]), None, offset, scale)
