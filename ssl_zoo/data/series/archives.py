"""The UCR archive (one channel) and the UEA archive (several): ``ROOT/NAME/NAME_TRAIN.*`` and ``NAME_TEST.*``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ssl_zoo.data.series.files import Labelled, read_table, read_ts
from ssl_zoo.data.series.splits import source_splits
from ssl_zoo.data.series.standardise import UCR_RAW, Normalize
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError, nearest

SITE = "https://www.timeseriesclassification.com"


def ucr(name: str, normalize: Normalize = "auto", root: str | None = None, download: bool = False) -> Splits:
    """A set of the UCR archive: ``.tsv`` with the label first, or ``.ts``.

    Args:
        name: Of the set: ``GunPoint``.
        normalize: auto: as TS2Vec's authors, the 34 sets that are stored raw by one mean and deviation of the training
            set (``dataset``), all others as they are (``none``).
        root: Folder of the archive.
        download: Not possible: the archive is fetched by hand.

    Raises:
        ConfigError: If a file is missing or a line of it cannot be read.
    """
    train, val = _both(root, name, (".tsv", ".ts"), download)
    raw = name in UCR_RAW
    chosen = ("dataset" if raw else "none") if normalize == "auto" else normalize
    why = f" (auto: {name} is {'' if raw else 'not '}among the sets that TS2Vec's authors standardise)"
    return source_splits(train, val, chosen, why if normalize == "auto" else "", f"{name}_TEST")


def uea(name: str, normalize: Normalize = "auto", root: str | None = None, download: bool = False) -> Splits:
    """A set of the UEA archive: ``.ts``, of several channels and any lengths.

    Args:
        name: Of the set: ``BasicMotions``.
        normalize: auto: each channel by its mean and deviation in the training set, as TS2Vec's authors (``channel``).
        root: Folder of the archive.
        download: Not possible: the archive is fetched by hand.

    Raises:
        ConfigError: As :func:`ucr`.
    """
    train, val = _both(root, name, (".ts",), download)
    why = " (auto: as TS2Vec's authors)" if normalize == "auto" else ""
    return source_splits(train, val, "channel" if normalize == "auto" else normalize, why, f"{name}_TEST")


def _both(root: str | None, name: str, suffixes: Sequence[str], download: bool) -> tuple[Labelled, Labelled]:
    if root is None:
        raise ConfigError(f"data.root is not set: the folder that holds {name}/{name}_TRAIN{suffixes[0]}, from {SITE}")
    if download:
        raise ConfigError(f"data.download=true: the archive is fetched by hand from {SITE}; set data.download=false")
    folder = Path(os.path.expanduser(str(root)))
    for suffix in suffixes:
        files = [folder / name / f"{name}_{part}{suffix}" for part in ("TRAIN", "TEST")]
        if all(file.is_file() for file in files):
            train, val = (read_ts(file) if suffix == ".ts" else read_table(file, "\t", "first") for file in files)
            return train, val
    raise ConfigError(_missing(folder, name, suffixes))


def _missing(root: Path, name: str, suffixes: Sequence[str]) -> str:
    wanted = f"{name}/{name}_TRAIN{suffixes[0]} and {name}_TEST{suffixes[0]}"
    there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not there:
        return f"data.root={root}: has no folder of a data set; wanted {wanted} in it, from {SITE}"
    if name not in there:
        return f"data.source.name={name}: data.root={root} has no such data set: {nearest(name, there)}"
    other = "".join(f", or both in {suffix}" for suffix in suffixes[1:])
    return f"data.root={root}: wanted {wanted}{other}; one of them is not there"
