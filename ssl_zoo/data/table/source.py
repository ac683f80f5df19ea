"""Rows of a table in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.data.fingerprint import content, digest, numbers
from ssl_zoo.data.source import Source, origin
from ssl_zoo.data.table.encoding import Column, to_json


class Rows:
    """Samples ``[M]`` float32, one number a column: scaled, or the position of a category; NaN where it is missing.

    Args:
        values: ``[N, M]``.
        columns: What they are.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        decisions: What was decided about the files, a line each.
    """

    in_memory = True
    damage_limit = 0
    baseline_name = "columns"

    def __init__(
        self,
        values: Tensor,
        columns: Sequence[Column],
        labels: Tensor | None,
        classes: list[str] | None,
        decisions: Sequence[str] = (),
    ) -> None:
        self.values = values
        self.columns = tuple(columns)
        self.labels = labels
        self.classes = None if labels is None else classes
        self.decisions = list(decisions)
        self.resolved = {"encoding": to_json(columns)}

    @property
    def facts(self) -> Mapping[str, Any]:
        """``columns``: their names; ``widths``: how many numbers a network gets of each; ``inputs``: of all of them."""
        widths = [column.inputs for column in self.columns]
        return {"inputs": sum(widths), "columns": [column.name for column in self.columns], "widths": widths}

    def __len__(self) -> int:
        return len(self.values)

    def fingerprint(self) -> str:
        return digest("table", self.resolved["encoding"], numbers(self.labels), content(self.values))

    def fetch(self, index: Tensor) -> Tensor:
        return self.values[index.to(self.values.device)]

    def load(self, index: int, hint: Any = None) -> Tensor:
        return self.values[index].cpu()

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(samples))

    def to(self, device: torch.device) -> Rows:
        moved = copy.copy(self)
        moved.values, moved.labels = self.values.to(device), None if self.labels is None else self.labels.to(device)
        return moved

    def baseline(self, view: Tensor) -> Tensor:
        """What a network gets of each row, as it is."""
        return view


def columns_of(source: Source) -> tuple[Column, ...]:
    """The columns of a table, or of a part of one."""
    rows = origin(source)
    assert isinstance(rows, Rows)
    return rows.columns
