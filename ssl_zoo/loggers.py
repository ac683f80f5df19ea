"""metrics.csv: one row per step, readable at any moment, continued by a resumed run."""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from ssl_zoo import files

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
TAIL = 64  # rows at the end that are kept in memory: what comes late comes a few rows late


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
        self._table = Table(self.path)
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
        cells = {name: _text(value) for name, value in metrics.items() if name != "step"}
        self._guarded(lambda: self._table.put(cells, step))

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Drop the rows after ``step``: a run that resumes there will write them again."""
        self._guarded(lambda: self._table.cut(step))

    def _guarded(self, change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as error:
            if not self._warned:
                rank_zero_warn(f"{self.path} cannot be written ({error}); training goes on without some of its rows.")
            self._warned = True
            self._table = Table(self.path)  # what reached the disk is not known: it is read before the next row


class _Row(NamedTuple):
    step: int
    start: int  # in bytes
    cells: dict[str, str]  # those that are not empty, the step among them


class Table:
    """A CSV file with one row per step, in the order of steps, that survives a kill at any moment.

    A new row is appended. A row among the last :data:`TAIL` is changed in place, with the rows after it; what will be
    written stands in a second file first, so that a start after a kill can do it again. Only new columns, and rows
    older than the tail, copy the file; old rows are not parsed for a column, and stay shorter than the header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plan = path.with_name(path.name + ".tail")
        self._columns: list[str] = []
        self._tail: list[_Row] = []
        self._head = 0  # length of the header line, in bytes
        self._end = 0  # length of the file, in bytes

    def put(self, cells: dict[str, str], step: int | None) -> None:
        """Write ``cells`` into the row of ``step`` (``None``: of the last row, or 0).

        Raises:
            OSError: If the file cannot be written.
        """
        self._open()
        if step is None:
            step = self._tail[-1].step if self._tail else 0
        cells = {**cells, "step": str(int(step))}
        self._add_columns([name for name in cells if name not in self._columns])
        if self._tail and step < self._tail[0].step and self._tail[0].start > self._head:
            self._put_far(cells, step)
            return
        first = next((i for i, row in enumerate(self._tail) if row.step >= step), len(self._tail))
        later = [(row.step, row.cells) for row in self._tail[first:]]
        if later and later[0][0] == step:
            cells = later.pop(0)[1] | cells
        self._write_from(first, [(step, cells), *later])

    def cut(self, step: int) -> None:
        """Drop the rows after ``step``.

        Raises:
            OSError: If the file cannot be written.
        """
        self._open()
        _, lines, _ = _parse(self.path.read_bytes())
        dropped = sum(len(line) for known, line in lines.items() if known > step)
        os.truncate(self.path, self._end - dropped)
        self._load()

    def _open(self) -> None:
        if not self._columns:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for begun in self.path.parent.glob(f"{self.path.name}.*.part"):  # by a start that was killed
                begun.unlink()
            self._finish_plan()
            self._load()

    def _load(self) -> None:
        """Take up the file that is there, less what a kill has left of a line."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        columns, lines, sound = _parse(whole)
        if columns and "step" not in columns:
            raise OSError("its first line names no column 'step'")
        self._columns = columns or list(COLUMNS)
        if not columns or not sound:
            self._write_all(lines)
            return
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        self._remember(len(whole), lines)

    def _remember(self, end: int, lines: dict[int, bytes]) -> None:
        self._head, self._end, self._tail = end - sum(map(len, lines.values())), end, []
        start = end
        for step, line in itertools.islice(reversed(lines.items()), TAIL):
            start -= len(line)
            self._tail.insert(0, _Row(step, start, _cells(self._columns, line)))

    def _add_columns(self, names: list[str]) -> None:
        if not names:
            return
        rows = self.path.read_bytes()[self._head : self._end]
        header = _line([*self._columns, *names])
        files.write(self.path, header + rows)
        longer = len(header) - self._head
        self._columns += names
        self._head, self._end = len(header), self._end + longer
        self._tail = [row._replace(start=row.start + longer) for row in self._tail]

    def _write_from(self, first: int, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
        """Put ``rows`` in the place of the tail's rows from number ``first`` on."""
        at = start = self._tail[first].start if first < len(self._tail) else self._end
        changed, parts = [], []
        for step, cells in rows:
            changed.append(_Row(step, start, cells))
            parts.append(_line(self._columns, cells))
            start += len(parts[-1])
        data = b"".join(parts)
        if at < self._end:
            self._plan.write_bytes(b"%d %d\n" % (at, _checksum(at, data)) + data)
        _overwrite(self.path, at, data)
        if at < self._end:
            self._plan.unlink()
        self._tail, self._end = [*self._tail[:first], *changed][-TAIL:], start

    def _finish_plan(self) -> None:
        """Do again what a kill may have left half done; a plan that is not whole was never begun."""
        if not self._plan.exists():
            return
        plan = re.fullmatch(rb"(\d+) (\d+)\n(.*)", self._plan.read_bytes(), re.DOTALL)
        if plan is not None and self.path.exists():
            at, data = int(plan[1]), plan[3]
            if int(plan[2]) == _checksum(at, data) and at <= self.path.stat().st_size:
                _overwrite(self.path, at, data)
        self._plan.unlink()

    def _put_far(self, cells: dict[str, str], step: int) -> None:
        """A row older than the tail: nothing of ours comes that late, and it is not lost for all that."""
        _, lines, _ = _parse(self.path.read_bytes())
        lines[step] = _line(self._columns, _cells(self._columns, lines.get(step, b"")) | cells)
        self._write_all(dict(sorted(lines.items())))

    def _write_all(self, lines: dict[int, bytes]) -> None:
        """Write the whole file, all rows as long as the header: a row is never shorter than the one before it."""
        lines = {step: _line(self._columns, _cells(self._columns, line)) for step, line in lines.items()}
        data = b"".join([_line(self._columns), *lines.values()])
        files.write(self.path, data)
        self._remember(len(data), lines)


def _parse(data: bytes) -> tuple[list[str], dict[int, bytes], bool]:
    """Columns, lines by step in the order of steps, and whether all of them are sound; ``data`` ends with a line's end.

    A line is none of ours and left out if it has no step, more cells than the header, fewer than the line before it
    (columns are only ever added), or a zero byte, which a power cut leaves. What stands out of order is sorted in; of
    two lines of a step the first counts, because the second may be what an older row has left.
    """
    header, *rows = data.splitlines(keepends=True) or [b""]
    columns = _split(header)
    at = columns.index("step") if "step" in columns else len(columns)
    lines: dict[int, bytes] = {}
    last, fewest, sound = -1, 0, True
    for line in rows:
        cells = [] if b"\0" in line else _split(line)
        if not max(fewest, at + 1) <= len(cells) <= len(columns) or not cells[at].isdecimal():
            sound = False
            continue
        step, fewest = int(cells[at]), len(cells)
        sound, last = sound and step > last, max(step, last)
        if step in lines:
            line = _line(columns, _cells(columns, line) | _cells(columns, lines[step]))
        lines[step] = line
    return columns, dict(lines if sound else sorted(lines.items())), sound


def _split(line: bytes) -> list[str]:
    text = line.decode(errors="replace").rstrip("\r\n")
    return next(csv.reader([text]), []) if '"' in text else text.split(",") if text else []


def _cells(columns: list[str], line: bytes) -> dict[str, str]:
    """The cells that are not empty, by name."""
    return {name: cell for name, cell in zip(columns, _split(line), strict=False) if cell}


def _line(columns: list[str], cells: dict[str, str] | None = None) -> bytes:
    """The header, or the line of ``cells``."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(columns if cells is None else [cells.get(n, "") for n in columns])
    return text.getvalue().encode()


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        file.truncate()


def _checksum(at: int, data: bytes) -> int:
    return zlib.crc32(b"%d\n" % at + data)


def _text(value: Any) -> str:
    """Whole numbers as they are, others with the digits that float32 has; words on one line."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:.7g}" if isinstance(value, float) else " ".join(str(value).split())
