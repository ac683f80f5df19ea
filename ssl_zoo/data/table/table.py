"""A table of the user's own: ``data=table data.root=FILE.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from ssl_zoo.data.source import Splits
from ssl_zoo.data.split_names import split_of
from ssl_zoo.data.table.encoding import Column, Numbers, fit_numbers, from_json, parsed
from ssl_zoo.data.table.files import SUFFIXES, Cells, read
from ssl_zoo.data.table.source import Rows
from ssl_zoo.errors import ConfigError, nearest, require

TARGETS = ("label", "class", "target", "y", "outcome", "species", "category")
SPLIT = "split"
PARSED = 0.95  # share of the cells of a column that are numbers, from which on the others are faults
TORN = 0.01  # share of the rows that may be left out
SHOWN = 3  # rows that a message names


class Options(NamedTuple):
    """How the files of a table are read; ``data.source`` says it, see :func:`table`."""

    target: str
    categories: Sequence[str]
    ignore: Sequence[str]
    numbers: Numbers
    unknown: Literal["refuse", "missing"]
    encoding: str


def table(
    root: str | None,
    val: str | None = None,
    target: str = "auto",
    categories: Sequence[str] = (),
    ignore: Sequence[str] = (),
    numbers: Numbers = "standard",
    unknown: Literal["refuse", "missing"] = "refuse",
    encoding: str = "auto",
    download: bool = False,
) -> Splits:
    """Rows of a CSV, TSV or Parquet file with a head.

    A column is numbers if nearly all its cells are; others are categories. Rows that cannot be read are left out,
    counted and named.

    Args:
        root: The file; or a folder with ``train.csv`` and, if there is one, ``val.csv`` or ``test.csv``. A column
            ``split`` (train, val, test) tells the rows of one file apart.
        val: Another file, whose rows validate.
        target: Column of the labels; ``auto``: the first of label, class, target, y, outcome, species, category that
            there is; ``none``: there are no labels.
        categories: Columns of numbers that are categories nevertheless.
        ignore: Columns that are not read.
        numbers: ``standard``: mean 0 and deviation 1 on the training rows; ``minmax``: between 0 and 1 there; ``none``.
        unknown: What a category is that no training row has: an error (``refuse``), or ``missing``.
        encoding: The columns as an earlier run fitted them; ``auto``: fitted on the training rows, and kept in the
            checkpoint.

    Raises:
        ConfigError: With the file, the row and the column of what is wrong.
    """
    for name, value, known in (("numbers", numbers, ("standard", "minmax", "none")),
                               ("unknown", unknown, ("refuse", "missing"))):
        require(f"data.source.{name}", value, known, ConfigError)
    train, held_out = _files(root, val)
    options = Options(target, tuple(categories), tuple(ignore), numbers, unknown, encoding)
    return built(train, held_out, options)


def _files(root: str | None, val: str | None) -> tuple[Cells, Cells | None]:
    if root is None:
        raise ConfigError("data.root is not set: wanted a CSV, TSV or Parquet file with a head, or a folder with "
                          "train.csv and val.csv")
    path = Path(root).expanduser()
    if path.is_dir():
        train, beside = _of_folder(path)
    else:
        train, beside = read(path), None
    own = None if val is None else read(Path(val).expanduser())
    if SPLIT not in train.head:
        return train, own or beside
    return _by_column(train, own or beside)


def _of_folder(folder: Path) -> tuple[Cells, Cells | None]:
    parts = {split_of(file.stem): file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES}
    if "train" not in parts:
        here = ", ".join(sorted(file.name for file in folder.iterdir())[:SHOWN]) or "nothing"
        raise ConfigError(f"data.root={folder}: wanted a file, or a folder with train.csv and val.csv; found {here}")
    held_out = parts.get("val") or parts.get("test")
    return read(parts["train"]), None if held_out is None else read(held_out)


def _by_column(cells: Cells, other: Cells | None) -> tuple[Cells, Cells | None]:
    words = cells.column(SPLIT)
    for word, number in zip(words, cells.numbers, strict=True):
        if word is None or split_of(word) is None:
            raise ConfigError(f"{cells.name} row {number}: split is {word!r}, wanted train, val or test")
    parts = [split_of(str(word)) for word in words]
    chosen = {part: [i for i, own in enumerate(parts) if own == part] for part in ("train", "val", "test")}
    if not chosen["train"]:
        raise ConfigError(f"{cells.name}: no row has the split train")
    held_out = chosen["val"] or chosen["test"]
    return cells.select(chosen["train"]), other or (cells.select(held_out) if held_out else None)


def built(train: Cells, held_out: Cells | None, options: Options) -> Splits:
    """The rows of one table or two as sources, with the columns fitted on the first."""
    label = _target(train, options.target)
    fixed = None if options.encoding == "auto" else from_json(options.encoding)
    columns = _fitted(train, label, options) if fixed is None else fixed
    classes = None if label is None else _classes(train, label)
    told = [] if label is not None or options.target == "none" else [
        f"{train.name}: no column is called {', '.join(TARGETS)}, so that rows have no labels; name it with "
        "data.source.target=NAME"
    ]
    first = _rows(train, columns, label, classes, options.unknown, told)
    return Splits(first, None if held_out is None else _rows(held_out, columns, label, classes, options.unknown, []))


def _target(cells: Cells, name: str) -> str | None:
    if name == "auto":
        return next((known for word in TARGETS for known in cells.head if known.lower() == word), None)
    if name != "none" and name not in cells.head:
        raise ConfigError(f"data.source.target={name}: {cells.name} has no such column: {nearest(name, cells.head)}")
    return None if name == "none" else name


def _fitted(cells: Cells, label: str | None, options: Options) -> list[Column]:
    for key, names in (("categories", options.categories), ("ignore", options.ignore)):
        for name in names:
            if name not in cells.head:
                raise ConfigError(
                    f"data.source.{key}: {cells.name} has no column {name!r}: {nearest(name, cells.head)}"
                )
    skipped = {label, SPLIT, *options.ignore}
    names = [name for name in cells.head if name not in skipped]
    if not names:
        raise ConfigError(f"{cells.name}: no column is left to learn from, beside {', '.join(map(str, skipped))}")
    return [_column(cells, name, options) for name in names]


def _column(cells: Cells, name: str, options: Options) -> Column:
    known = [text for text in cells.column(name) if text is not None]
    if not known:
        raise ConfigError(f"{cells.name}: {name} has no value in any row; leave it out: data.source.ignore=[{name}]")
    numbers = [number for text in known if (number := parsed(text)) is not None]
    if name not in options.categories and len(numbers) >= PARSED * len(known):
        return fit_numbers(name, numbers, options.numbers)
    values = tuple(sorted(set(known)))
    if len(values) > max(20, len(known) // 2) and name not in options.categories:
        raise ConfigError(
            f"{cells.name}: {name} has {len(values):,} different values in {len(known):,} rows, such as {values[0]!r}; "
            f"leave it out (data.source.ignore=[{name}]), or say that it is one of categories "
            f"(data.source.categories=[{name}])"
        )
    return Column(name, values)


def _classes(cells: Cells, label: str) -> list[str]:
    known = {text for text in cells.column(label) if text is not None}
    if not known:
        raise ConfigError(f"{cells.name}: no row has a {label}; data.source.target=none says that there are no labels")
    if len(known) > max(20, len(cells.rows) // 2):
        raise ConfigError(
            f"{cells.name}: {label} has {len(known):,} different values in {len(cells.rows):,} rows; classes are "
            "wanted, not numbers to be predicted: name another column with data.source.target, or none"
        )
    numbers = {text: parsed(text) for text in known}
    return sorted(known, key=lambda text: (numbers[text] is None, numbers[text] or 0.0, text))


def _rows(
    cells: Cells,
    columns: Sequence[Column],
    label: str | None,
    classes: list[str] | None,
    unknown: str,
    decisions: list[str],
) -> Rows:
    """Rows as numbers; those that cannot be read are left out."""
    wanted = [*(column.name for column in columns), *([] if label is None else [label])]
    missing = [name for name in wanted if name not in cells.head]
    if missing:
        raise ConfigError(f"{cells.name} has no column {missing[0]!r}, which the training rows have: "
                          f"{nearest(missing[0], cells.head)}")
    places = [cells.head.index(name) for name in wanted]
    values, labels, torn = [], [], list(cells.torn)
    for number, row in zip(cells.numbers, cells.rows, strict=True):
        said = [row[place] for place in places]
        where = f"{cells.name} row {number}"
        try:
            values.append([_number(c, text, unknown, where) for c, text in zip(columns, said, strict=False)])
        except ValueError as error:
            torn.append(f"{where}: {error}")
            continue
        labels.append(-1 if classes is None else _label(str(label), said[-1], classes, where))
    told = _left_out(torn, len(cells.rows))
    found = None if classes is None else torch.tensor(labels, dtype=torch.int64)
    return Rows(torch.tensor(values, dtype=torch.float64).float(), columns, found, classes, [*decisions, *told])


def _number(column: Column, text: str | None, unknown: str, where: str) -> float:
    if text is None:
        return float("nan")
    try:
        return column.number(text)
    except LookupError as error:
        if unknown == "missing":
            return float("nan")
        raise ConfigError(f"{where}: {error}; data.source.unknown=missing takes it for a missing one") from None


def _label(name: str, text: str | None, classes: list[str], where: str) -> int:
    if text is not None and text not in classes:
        raise ConfigError(f"{where}: {name} is {text!r}, and the training rows have {', '.join(classes)}")
    return -1 if text is None else classes.index(text)


def _left_out(torn: list[str], rows: int) -> list[str]:
    if not torn:
        return []
    few = "; ".join(torn[:SHOWN]) + ("; ..." if len(torn) > SHOWN else "")
    if len(torn) > max(1, TORN * rows):
        raise ConfigError(f"{len(torn)} of {rows} rows cannot be read, and {TORN:.0%} may be left out: {few}")
    return [f"{len(torn)} of {rows} rows are left out: {few}"]

