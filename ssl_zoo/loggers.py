"""metrics.csv: one row per step, readable at any moment, continued by a resumed run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

COLUMNS = (
    "epoch",
    "step",
    "train/loss",
    "probe/top1",
    "knn/top1",
    "collapse/std",
    "collapse/rank",
    "throughput/samples_per_s",
    "throughput/data_wait",
)


class MetricsCSV(Logger):
    """Append metrics to one file (Lightning's own CSV logger deletes the file of the run that is resumed).

    What is logged at one step shares a row; a new name becomes a new last column. Every call leaves a whole file
    behind, so that a killed run loses nothing and plots can read along. A full disk costs a warning, not the run.

    Args:
        path: The file; its folder is made at the first row.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns = list(COLUMNS)
        self._row: dict[str, str] = {}  # the last row of the file
        self._row_at = 0  # where it starts, in bytes
        self._opened = False
        self._warned = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in its own file of the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write ``metrics`` into the row of ``step`` (``None``: the step of the last row)."""
        try:
            self._open()
            row = {name: _text(value) for name, value in metrics.items()}
            row["step"] = str(int(self._row.get("step", 0)) if step is None else int(step))
            self._write(row)
        except OSError as error:
            if not self._warned:
                rank_zero_warn(f"{self.path} cannot be written ({error}); training goes on without some of its rows.")
            self._warned = True
            self._opened = False  # what reached the disk is not known: read it again before the next row

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Drop the rows after ``step``: a run that resumes there will write them again."""
        self._open()
        rows = [row for row in self._read() if int(row["step"]) <= step]
        self._rewrite(rows)

    def _open(self) -> None:
        """Take up the file that is there, less a last line cut short by a kill."""
        if self._opened:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = self._read()
        names = [name for row in rows for name in row]
        self._columns = list(dict.fromkeys([*COLUMNS, *self._header(), *names]))
        self._rewrite(rows)
        self._opened = True

    def _write(self, row: dict[str, str]) -> None:
        new = [name for name in row if name not in self._columns]
        last = int(self._row.get("step", -1))
        if new or int(row["step"]) < last:
            self._columns += new
            rows = {int(known["step"]): known for known in self._read()}
            rows[int(row["step"])] = rows.get(int(row["step"]), {}) | row
            self._rewrite([rows[key] for key in sorted(rows)])
            return
        with self.path.open("r+b") as file:
            if int(row["step"]) == last:
                row = self._row | row
            else:
                self._row_at = file.seek(0, os.SEEK_END)
            file.seek(self._row_at)
            file.write(self._lines([row]))
            file.truncate()
        self._row = row

    def _lines(self, rows: list[dict[str, str]], header: bool = False) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """Replace the whole file at once, so that a reader never meets half of it."""
        head = self._lines(rows[:-1], header=True)
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_bytes(head + self._lines(rows[-1:]))
        temporary.replace(self.path)
        self._row, self._row_at = (rows[-1] if rows else {}), len(head)

    def _header(self) -> list[str]:
        lines = self._whole_lines()
        return next(csv.reader(lines[:1]), [])

    def _read(self) -> list[dict[str, str]]:
        rows = csv.DictReader(self._whole_lines())
        return [{name: value for name, value in row.items() if value} for row in rows]

    def _whole_lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return [line for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _text(value: Any) -> str:
    """Whole numbers as they are, others with the digits that float32 has."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.7g}" if isinstance(value, float) else str(value)
