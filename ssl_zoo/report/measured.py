"""What was measured of the methods: every one on the same images with the same network (docs/measured.md)."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

HOW = "top-1 after 10 epochs of 5,000 CIFAR-10 images, and its gain (docs/measured.md)"


class Measured(NamedTuple):
    """A row of ``measured.csv``, as ``benchmarks/zoo.py`` gives it; percent, and the spread of the features.

    ``gain`` is that of the exact accuracies, which the difference of the rounded ones may miss by 0.1.
    """

    method: str
    network: str  # empty for the small residual network
    untrained: str
    trained: str
    gain: str
    linear: str
    spread: str

    @property
    def told(self) -> str:
        return f"{self.trained} ({self.gain})"


def measured() -> dict[str, Measured]:
    """By the name that ``method=`` takes, the most accurate first."""
    with files("ssl_zoo.report").joinpath("measured.csv").open(encoding="utf-8") as file:
        found = {row["method"]: Measured(**row) for row in csv.DictReader(file)}
    return dict(sorted(found.items(), key=lambda item: -float(item[1].trained)))


def markdown() -> str:
    """The first table of ``docs/measured.md``."""
    lines = [
        "| method | kNN untrained | kNN after 10 epochs | gain | linear | feature spread (0 collapsed, 1 isotropic) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in measured().items():
        network = f" ({row.network})" if row.network else ""
        lines.append(f"| `{name}`{network} | {' | '.join(row[2:])} |")
    return "\n".join(lines)
