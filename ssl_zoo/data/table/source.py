"""Rows of a table in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ssl_zoo.data.fingerprint import content, digest, numbers
from ssl_zoo.data.source import Source, origin
from ssl_zoo.data.table.encoding import Column, to_json
from ssl_zoo.data.tensors import Tensors


class Rows(Tensors):
    """Samples ``[M]`` float32, one number a column: scaled, or the position of a category; NaN where it is missing.

    Args:
        values: ``[N, M]``.
        columns: What they are.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
        decisions: What was decided about the files, a line each.
    """

    modality = "table"
    baseline_name = "columns"

    def __init__(
        self,
        values: Tensor,
        columns: Sequence[Column],
        labels: Tensor | None,
        classes: list[str] | None,
        decisions: Sequence[str] = (),
    ) -> None:
        super().__init__(values, labels, classes)
        self.columns = tuple(columns)
        self.decisions = list(decisions)
        numbers_of = values[:, [column.values is None for column in columns]].nan_to_num(0.0)
        self.unit_range = bool(((numbers_of >= 0) & (numbers_of <= 1)).all())
        self.resolved = {"encoding": to_json(columns)}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What networks and operations must know.

        ``columns``: their names; ``widths``: how many numbers a network gets of each; ``inputs``: of all of them;
        ``unit_range``: whether all numbers of the rows lie between 0 and 1.
        """
        widths = [column.inputs for column in self.columns]
        names = [column.name for column in self.columns]
        return {"inputs": sum(widths), "columns": names, "widths": widths, "unit_range": self.unit_range}

    def fingerprint(self) -> str:
        return digest("table", self.resolved["encoding"], numbers(self.labels), content(self.values))

    def baseline(self, view: Tensor) -> Tensor:
        """What a network gets of each row, as it is."""
        return view


def columns_of(source: Source) -> tuple[Column, ...]:
    """The columns of a table, or of a part of one."""
    rows = origin(source)
    assert isinstance(rows, Rows)
    return rows.columns
