"""Image files of people's own: a tree, a table of them, or several of these."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.fingerprint import chosen, digest, numbers, spread
from ssl_zoo.data.image.csv_file import SUFFIXES, csv_file
from ssl_zoo.data.image.decode import Reader, Shrink, reader
from ssl_zoo.data.image.pixel_range import sampled
from ssl_zoo.data.image.source import ImageSource
from ssl_zoo.data.image.tree import Options, Parts, Rows, tree
from ssl_zoo.data.source import Shares, Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side

CONTENTS, BEGINNING = 32, 1 << 16  # files that a fingerprint looks into, and how far


class Folder(ImageSource):
    """Image files; decoded when asked for.

    Args:
        root: Where they lie; or several folders.
        paths: Relative to it.
        labels: ``[N]`` int64, -1 = none; or None.
        classes: Their names.
        reader: How files become images.
        damage_limit: So many damaged files are replaced.
        first: Of several roots: the first sample of each.
        share: Of several roots: the share of an epoch that each gives; None: as many samples as it has.
        decisions: What was decided about the files, a line each.
    """

    in_memory = False
    image_size: Side | None = None

    def __init__(
        self,
        root: Path | Sequence[Path],
        paths: list[str],
        labels: Tensor | None,
        classes: list[str] | None,
        reader: Reader,
        damage_limit: int,
        first: Sequence[int] = (0,),
        share: Sequence[float] | None = None,
        decisions: Sequence[str] = (),
    ) -> None:
        self.roots = [root] if isinstance(root, Path) else list(root)
        self.first = np.array(first)
        self.shares = None if share is None else Shares(self._roots_of(len(paths)), tuple(share))
        self.reader = reader
        self.resolved = reader.resolved
        self.decisions = [*decisions, *reader.decisions]
        self.white = reader.range.white
        self.labels = labels
        self.classes = classes
        self.channels = reader.channels
        self.damage_limit = damage_limit
        # One block of bytes instead of a million strings: workers share it with the parent instead of copying it,
        # which is what reference counts do to a list.
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._names = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, index: int) -> str:
        """Full path of a sample."""
        start = self._ends[index - 1] if index else 0
        root = self.roots[0] if len(self.roots) == 1 else self.roots[int(self.first.searchsorted(index, "right")) - 1]
        return str(root / os.fsdecode(self._names[start : self._ends[index]].tobytes()))

    def _roots_of(self, samples: int) -> Tensor:
        """``[N]``: in which root each sample lies."""
        return torch.from_numpy(self.first.searchsorted(np.arange(samples), "right") - 1)

    def fingerprint(self) -> str:
        names = digest(self._ends.astype("<i8"), self._names)
        rows = chosen(names, len(self))
        sizes = np.array([_size(self.path(i)) for i in rows], "<i8")
        # Raw images of one shape all have one size: a look into a few tells two sets with the same names apart.
        looked_into = b"".join(_beginning(self.path(rows[int(i)])) for i in spread(len(rows), CONTENTS))
        several = [self.first.astype("<i8")] if len(self.roots) > 1 else []
        return digest("folder", names, numbers(self.labels), sizes, np.frombuffer(looked_into, np.uint8), *several)

    def load(self, index: int, shrink: Shrink | None = None) -> Tensor:
        return self.reader(self.path(index), shrink=shrink)

    def masked(self, index: int) -> tuple[Tensor, Tensor | None]:
        """A sample, and where it has no data: :meth:`ssl_zoo.data.image.decode.Reader.masked`."""
        return self.reader.masked(self.path(index))

    def fetch(self, index: Tensor) -> Tensor:
        raise TypeError("a folder is read with load(i): its images differ in size")

    def to(self, device: torch.device) -> Folder:
        return self


def _size(path: str) -> int:
    """Bytes of a file; -1 if it is gone or may not be looked at."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _beginning(path: str) -> bytes:
    """A digest of the first 64 KiB of a file; nothing if it is gone or may not be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(BEGINNING), digest_size=16).digest()
    except OSError:
        return b""


class Many(NamedTuple):
    """Rows of several roots, one after the other; ``first`` is the position of the first of each."""

    roots: list[Path]
    first: list[int]
    paths: list[str]
    labels: Tensor | None
    classes: list[str] | None


def folder(
    root: str | list[str] | None,
    channels: int,
    image_size: Side,
    labels: Literal["auto", "folder", "none"] = "auto",
    max_damaged: int | None = None,
    cache: str | bool | None = None,
    draft: bool = True,
    download: bool = False,
    files: str | None = None,
    range: Any = "auto",
    nodata: float | None = None,
    table: str | None = None,
    train_folder: str | None = None,
    val_folder: str | None = None,
    shares: list[float] | None = None,
    exif: bool = False,
    max_pixels: int | None = None,
) -> Splits:
    """Training and validation images of a folder, of a table, or of several of these.

    Args:
        root: A folder, a ``.csv`` or ``.tsv`` file (:mod:`ssl_zoo.data.image.csv_file`), or a list of them. Of a folder
            that holds folders with known names for parts (:mod:`ssl_zoo.data.split_names`) these train and
            validate; otherwise everything below it trains. Links are followed, hidden entries are not.
        channels: 1 (grey), 3, or as many bands as the files have.
        image_size: Not used here: views cut images of any size.
        labels: ``folder``: the first sub-folder is the class. ``none``: unlabelled, and no validation set. ``auto``:
            by folder if there are two or more and no image lies outside of them; those of a table.
        max_damaged: Unreadable files that are replaced before the run ends; None: the larger of 100 and 1 %.
        cache: Folder for the list of files; None: ``~/.cache/ssl_zoo``; False: none.
        draft: Decode JPEG files that are more than four times as large as needed at 1/2, 1/4 or 1/8 of their size.
        download: Not possible for a folder.
        files: A text file that lists the training files, one path below ``root`` or its training folder a line, alone
            or before a space and a label (ImageNet-LT); labels are those of the folders, and validated are images of
            the classes in the list. None: all files.
        range, nodata: As :func:`ssl_zoo.data.image.decode.reader` takes them.
        table: A ``.csv`` or ``.tsv`` file whose paths are relative to ``root``; None: ``root`` says all.
        train_folder: Of the training images, below ``root``; ``.``: all that is there. None: by name.
        val_folder: Of the validation images; ``none``: there is none. None: by name.
        shares: Of several roots: the share of an epoch's samples that each gives, in proportion; None: an epoch shows
            each sample once.
        exif: Turn photographs as their orientation tag says.
        max_pixels: Larger images are damaged ones; None: Pillow's limit, 178,956,970.

    Raises:
        ConfigError: No image, a class that only the validation set has, labels asked for where there are no folders, a
            list or a table that names what is not there.
    """
    if root is None:
        raise ConfigError("data.root is not set: wanted the folder that holds the images (or train/ and val/)")
    if download:
        raise ConfigError("data.download=true: nobody knows where this folder comes from; fetch it and set data.root")
    roots = [root] if isinstance(root, str) else list(root)
    options = Options(labels, cache, files, train_folder, val_folder)
    _check_roots(roots, shares, options, table)
    parts = [_parts(one, table, options) for one in roots]
    train = _joined([part.train for part in parts])
    held = [part.val for part in parts if part.val is not None]
    val = _joined(held, train.classes) if held and train.classes else None
    limit = max(100, len(train.paths) // 100) if max_damaged is None else max_damaged
    looked_into = [_full(train, i) for i in sampled(len(train.paths))]
    read = reader(looked_into, channels, range, nodata, draft, exif=exif, max_pixels=max_pixels)
    told = [_line(one, line, len(roots)) for one, part in zip(roots, parts, strict=True) for line in part.decisions]
    told += [] if shares is None else [_shares_line(roots, train, shares)]

    def source(rows: Many, **more: Any) -> Folder:
        return Folder(rows.roots, rows.paths, rows.labels, rows.classes, read, limit, rows.first, **more)

    return Splits(source(train, share=shares, decisions=told), None if val is None else source(val))


def _parts(root: str, table: str | None, options: Options) -> Parts:
    base = Path(os.path.expanduser(str(root))).absolute()
    if table is not None:
        file = Path(os.path.expanduser(table)).absolute()
        return csv_file(f"data.source.table={table}", file, _existing(root, base), options.labels)
    if base.suffix.lower() in SUFFIXES and not base.is_dir():
        return csv_file(f"data.root={root}", base, base.parent, options.labels)
    return tree(root, _existing(root, base), options)


def _existing(root: str, base: Path) -> Path:
    if base.is_dir():
        return base
    wanted = f"wanted a folder, or a {' or '.join(SUFFIXES)} file"
    if base.exists():
        raise ConfigError(f"data.root={root} is a file; {wanted}")
    raise ConfigError(f"data.root={root}: there is no such folder (looked at {base})")


def _check_roots(roots: list[str], shares: list[float] | None, options: Options, table: str | None) -> None:
    """Raise for settings that do not go together."""
    tables = [root for root in roots if Path(root).suffix.lower() in SUFFIXES]
    of_a_folder = {"files": options.files, "train_folder": options.train_folder, "val_folder": options.val_folder}
    typed = [f"data.source.{name}={value}" for name, value in of_a_folder.items() if value is not None]
    if typed and (table is not None or tables):
        raise ConfigError(f"{typed[0]} goes with a folder, and {table or tables[0]} says itself which images there are")
    if len(roots) > 1 and (table is not None or options.files is not None):
        name, value = ("table", table) if table is not None else ("files", options.files)
        raise ConfigError(f"data.source.{name}={value} goes with one root, and there are {len(roots)}")
    if not roots:
        raise ConfigError("data.root=[]: wanted the folder that holds the images, or a list of folders")
    if shares is None:
        return
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) and x > 0 for x in shares)
    if len(roots) < 2 or len(shares) != len(roots) or not numbers:
        raise ConfigError(
            f"data.source.shares={list(shares)}: wanted a number above 0 for each of the {len(roots)} roots in "
            "data.root=[A,B], two or more; null shows each sample once an epoch"
        )


def _joined(parts: list[Rows], classes: list[str] | None = None) -> Many:
    """Rows of all parts, their labels numbered alike.

    Args:
        classes: The numbering; None: all names, in their order.
    """
    if classes is None:
        names = [name for part in parts for name in part.classes or []]
        classes = parts[0].classes if len(parts) == 1 else sorted(set(names)) or None
    sizes = [len(part.paths) for part in parts]
    labels = None if classes is None else torch.cat([_renumbered(part, classes) for part in parts])
    paths = [path for part in parts for path in part.paths]
    return Many([part.root for part in parts], [sum(sizes[:i]) for i, _ in enumerate(sizes)], paths, labels, classes)


def _renumbered(part: Rows, classes: list[str]) -> Tensor:
    if part.labels is None or part.classes is None:
        return torch.full((len(part.paths),), -1)
    number = {name: i for i, name in enumerate(classes)}
    numbers = torch.tensor([*(number[name] for name in part.classes), -1])  # the last is that of no label
    return numbers[part.labels]


def _full(rows: Many, index: int) -> str:
    root = rows.roots[int(np.searchsorted(rows.first, index, side="right")) - 1]
    return str(root / rows.paths[index])


def _line(root: str, line: str, roots: int) -> str:
    return f"{root}: {line}" if roots > 1 else line


def _shares_line(roots: list[str], rows: Many, shares: list[float]) -> str:
    """How often a sample of each root is seen in an epoch."""
    ends = [*rows.first[1:], len(rows.paths)]
    sizes = [end - start for start, end in zip(rows.first, ends, strict=True)]
    parts = [share / sum(shares) for share in shares]
    told = [
        f"{part:.0%} from {root} (each image {part * len(rows.paths) / size:.2g} times)"
        for root, part, size in zip(roots, parts, sizes, strict=True)
    ]
    return f"an epoch draws {', '.join(told)}"
