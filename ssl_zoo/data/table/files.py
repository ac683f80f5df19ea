"""Rows of words from CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_zoo.errors import ConfigError

SUFFIXES = (".csv", ".tsv", ".parquet")
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # as people write that a value is not known


class Cells(NamedTuple):
    """What a file holds: cells in words, None where nothing is known."""

    name: str  # of the file, for messages
    head: tuple[str, ...]
    rows: list[list[str | None]]
    numbers: list[int]  # of the rows: lines of the file, the head being 1; rows counted from 1 where there are no lines
    torn: list[str]  # what was left out: rows with another number of cells, a sentence each

    def column(self, name: str) -> list[str | None]:
        place = self.head.index(name)
        return [row[place] for row in self.rows]

    def select(self, rows: Sequence[int]) -> Cells:
        """Some of the rows."""
        return self._replace(rows=[self.rows[i] for i in rows], numbers=[self.numbers[i] for i in rows])


def read(path: Path) -> Cells:
    """A table with a head.

    Raises:
        ConfigError: If it is not there, cannot be read, or has no head or no row.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a table is a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; a table is a CSV, TSV or Parquet file with a head")
    found = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    twice = sorted({name for name in found.head if found.head.count(name) > 1})
    if twice or "" in found.head:
        wrong = f"two columns are called {twice[0]!r}" if twice else f"column {found.head.index('') + 1} has no name"
        raise ConfigError(f"{path}: {wrong}; the first line names each column once")
    if not found.rows:
        raise ConfigError(f"{path}: there is no row below the head")
    return found


def cell(text: str) -> str | None:
    """A cell without the blanks around it; None if it says that nothing is known."""
    stripped = text.strip()
    return None if stripped.lower() in MISSING else stripped


def _csv(path: Path) -> Cells:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            sample = file.read(65536)
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(path, sample))
            head = tuple(name.strip() for name in next(reader, []))
            rows, numbers, torn = [], [], []
            for line in reader:
                if len(line) == len(head):
                    rows.append([cell(text) for text in line])
                    numbers.append(reader.line_num)
                elif line:
                    torn.append(f"{path.name} row {reader.line_num}: {len(line)} cells, the head has {len(head)}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a table in UTF-8 ({error})") from None
    return Cells(path.name, head, rows, numbers, torn)


def _delimiter(path: Path, sample: str) -> str:
    """The one that the head has most of."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    head = sample.splitlines()[0] if sample else ""
    return max(",;\t|", key=head.count)


def _parquet(path: Path) -> Cells:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(
            f"{path}: Parquet files want pyarrow: pip install 'ssl_zoo[table]'; CSV files want nothing"
        ) from None
    try:
        columns = parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    words = [[None if value is None else cell(_word(value)) for value in column] for column in columns.values()]
    rows = [list(row) for row in zip(*words, strict=True)]
    return Cells(path.name, tuple(map(str, columns)), rows, list(range(1, len(rows) + 1)), [])


def _word(value: object) -> str:
    """Booleans as 0 and 1, so that they are numbers as they are in other files; numbers without loss."""
    return str(int(value)) if isinstance(value, bool) else str(value)
