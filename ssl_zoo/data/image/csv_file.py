"""A CSV or TSV file that says which images there are: ``path,label[,split]``, one a row."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.data.image.tree import Parts, Rows, count, few
from ssl_zoo.data.split_names import Split, split_of
from ssl_zoo.errors import ConfigError

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t"
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img"),
    "label": ("label", "class", "category", "target", "class_name", "label_name"),
    "split": ("split", "set", "subset", "partition"),
}


class Line(NamedTuple):
    """A row: its number in the file, counted from 1, and its cells."""

    number: int
    path: str
    label: str
    split: Split


class Table(NamedTuple):
    """What a file says, and the names of columns that are not read."""

    lines: list[Line]
    labelled: bool
    unread: list[str]


def csv_file(root: str, file: Path, base: Path, labels: Literal["auto", "folder", "none"] = "auto") -> Parts:
    """The samples of a table, in its order.

    Args:
        root: The file as it was typed, for messages.
        file: It.
        base: Folder that relative paths in it begin at.
        labels: ``none``: its labels are not read, and nothing validates.

    Raises:
        ConfigError: With the row: a file that is not there or named twice otherwise, a split nobody knows, a class that
            only the validation set has.
    """
    if labels not in ("auto", "none"):
        raise ConfigError(f"data.source.labels={labels}: {file.name} says the labels itself; wanted auto or none")
    table = _read(root, file)
    labelled = table.labelled and labels == "auto"
    lines = _there(root, table.lines, base)
    table = table._replace(lines=lines)
    parts = {split: [line for line in lines if line.split == split] for split in ("train", "val", "test")}
    train, chosen = parts["train"], "val" if parts["val"] else "test"
    if not train:
        raise ConfigError(f"{root}: no row is of the training set; call it train in the column split")
    classes = _sorted({line.label for line in train if line.label and labelled}) or None
    val = parts[chosen] if classes else []
    if classes is not None:
        _check_classes(root, val, classes)
    told = _told(file, train, val, chosen, classes, {split: len(rows) for split, rows in parts.items()})
    decisions = [told, *_remarks(table, labels, classes)]
    return Parts(_rows(base, train, classes), _rows(base, val, classes) if val else None, decisions)


# Reading


def _read(root: str, file: Path) -> Table:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:  # spreadsheets begin a file with a mark
            first = text.readline()
            text.seek(0)
            delimiter = "\t" if file.suffix.lower() == ".tsv" else max(DELIMITERS, key=first.count)
            cells = [[cell.strip() for cell in row] for row in csv.reader(text, delimiter=delimiter)]
    except (OSError, UnicodeError, csv.Error) as error:
        no_text = "it is no text in UTF-8" if isinstance(error, UnicodeError) else error
        reason = getattr(error, "strerror", None) or no_text
        raise ConfigError(f"{root}: cannot be read ({reason}); wanted rows of path,label[,split]") from None
    rows = [(i, row) for i, row in enumerate(cells, start=1) if any(row)]
    if not rows:
        raise ConfigError(f"{root}: it has no row; wanted rows of path,label[,split]")
    columns, unread, has_header = _columns(root, rows[0][1])
    lines = list(_lines(root, rows[1:] if has_header else rows, columns, len(rows[0][1])))
    if not lines:
        raise ConfigError(f"{root}: it has a header and no row; wanted rows of path,label[,split]")
    return Table(lines, "label" in columns, unread)


def _columns(root: str, first: list[str]) -> tuple[dict[str, int], list[str], bool]:
    """Where each known column stands, which are not read, and whether the first row is a header."""
    names = [cell.casefold() for cell in first]
    known = {kind: [i for i, name in enumerate(names) if name in words] for kind, words in COLUMNS.items()}
    if not known["path"]:
        if len(first) > len(COLUMNS):
            raise ConfigError(
                f"{root}: its rows have {len(first)} cells and no header; wanted path,label[,split], or a first row "
                "that calls these columns path, label and split"
            )
        return dict(zip(COLUMNS, range(len(first)), strict=False)), [], False
    twice = next((kind for kind, places in known.items() if len(places) > 1), None)
    if twice is not None:
        raise ConfigError(f"{root}: row 1 has the columns {few([first[i] for i in known[twice]])}, all of which may be "
                          f"the {twice}; rename the others")
    columns = {kind: places[0] for kind, places in known.items() if places}
    return columns, [name for i, name in enumerate(first) if i not in columns.values()], True


def _lines(root: str, rows: list[tuple[int, list[str]]], columns: dict[str, int], width: int) -> Iterator[Line]:
    path, label, split = (columns.get(kind) for kind in COLUMNS)
    assert path is not None
    known: dict[str, Split | None] = {"": "train"}
    for i, row in rows:
        if len(row) != width:
            raise ConfigError(f"{root}: row {i} has {count(len(row), 'cell')}, the first row {width}; put a cell that "
                              "holds the sign between cells into quotes")
        if not row[path]:
            raise ConfigError(f"{root}: row {i} names no file")
        word = "" if split is None else row[split]
        if word not in known:
            known[word] = split_of(word)
        part = known[word]
        if part is None:
            raise ConfigError(f"{root}: row {i} ({row[path]}) is of the split {word!r}; wanted train, val or test")
        yield Line(i, row[path], "" if label is None else row[label], part)


def _there(root: str, lines: list[Line], base: Path) -> list[Line]:
    """The lines with paths as the system has them, relative to ``base`` where they lie below it."""
    folders: dict[str, Looked] = {}
    seen: dict[str, Line] = {}
    found = []
    for line in lines:
        path = _path(line.path, base, folders)
        if path is None:
            raise ConfigError(
                f"{root}: row {line.number} names {line.path}, which is not there (looked at {base / line.path}); "
                f"paths are relative to {base}, and a header calls its columns path, label and split"
            )
        line = Line(line.number, path, line.label, line.split)
        first = seen.setdefault(path, line)
        if first is not line:
            _check_same(root, first, line)
        found.append(line)
    return found


class Looked(NamedTuple):
    """A folder that was looked into, once for all of its files."""

    prefix: str  # how paths to it begin, seen from the base
    names: set[str]


def _path(name: str, base: Path, folders: dict[str, Looked]) -> str | None:
    """A path relative to ``base`` of a file that is there."""
    for word in (name, name.replace("\\", "/")) if "\\" in name else (name,):  # of a table written on Windows
        head, tail = os.path.split(word)
        if head not in folders:
            folders[head] = _looked_into(head, base)
        path = folders[head].prefix + tail
        if tail in folders[head].names or os.path.isfile(base / path):  # some systems do not tell a from A
            return path
    return None


def _looked_into(folder: str, base: Path) -> Looked:
    full = os.path.normpath(os.path.join(base, os.path.expanduser(folder)))
    names = set(os.listdir(full)) if os.path.isdir(full) else set()
    below = os.path.join(full, "").removeprefix(os.path.join(base, ""))
    return Looked(below, names)


def _check_same(root: str, first: Line, line: Line) -> None:
    if (first.label, first.split) != (line.label, line.split):
        raise ConfigError(
            f"{root}: rows {first.number} and {line.number} name the same file, {line.path}, as {_kind(first)} and as "
            f"{_kind(line)}; wanted one of them"
        )


def _kind(line: Line) -> str:
    return f"{line.label or 'no label'} ({line.split})"


# Labels


def _sorted(names: set[str]) -> list[str]:
    """Numbers by their value, words by their letters."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _check_classes(root: str, lines: Sequence[Line], classes: list[str]) -> None:
    known = {"", *classes}
    strange = next((line for line in lines if line.label not in known), None)
    if strange is not None:
        raise ConfigError(
            f"{root}: row {strange.number} ({strange.path}) has the label {strange.label!r}, which no training row "
            f"has; there are {few(classes)}; leave its label empty, or move it to the training set"
        )


def _rows(base: Path, lines: Sequence[Line], classes: list[str] | None) -> Rows:
    return Rows(base, [line.path for line in lines], _labels(lines, classes), classes)


def _labels(lines: Sequence[Line], classes: list[str] | None) -> Tensor | None:
    if classes is None:
        return None
    number = {"": -1, **{name: i for i, name in enumerate(classes)}}
    return torch.tensor([number[line.label] for line in lines], dtype=torch.int64)


# Lines of the screen


def _told(
    file: Path, train: list[Line], val: list[Line], chosen: str, classes: list[str] | None, rows: dict[str, int]
) -> str:
    without = sum(not line.label for line in train) if classes else 0
    of = f" in {count(len(classes), 'class', 'classes')}" if classes else ""
    parts = [f"training set: {count(len(train), 'row')} of {file.name}{of}"]
    parts[0] += f", {without:,} of them without a label" if without else ""
    parts.append(f"validation set: {count(len(val), 'row')} ({chosen})" if val else "no validation set")
    unused = {split: n for split, n in rows.items() if split != "train" and n and not (val and split == chosen)}
    parts += [f"not read: {count(n, 'row')} ({split})" for split, n in unused.items()]
    return "; ".join(parts)


def _remarks(table: Table, labels: str, classes: list[str] | None) -> list[str]:
    found = []
    if classes is None and labels == "auto":
        found.append(f"no labels: {'its column label is empty' if table.labelled else 'it has no column label'}")
    if table.unread:
        found.append(f"columns that are not read: {few(table.unread)}")
    paths = [line.path for line in table.lines]
    twice = len(paths) - len(set(paths))
    return [*found, *([f"{count(twice, 'row')} of a file that another row names too"] if twice else [])]
