"""Own series: ``train.npy`` or ``train.csv`` in a folder, and ``val.*`` or ``test.*`` beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ssl_zoo.data.series.files import Labelled, lines, read_table, read_ts
from ssl_zoo.data.series.splits import source_splits
from ssl_zoo.data.series.standardise import Normalize
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError

SUFFIXES = (".npy", ".csv", ".tsv", ".ts")
VALIDATION = ("val", "test")
LAYOUT = "wanted train.npy ([N, T] or [N, T, C]) with train_labels.npy or .txt, train.csv, train.tsv or train.ts"


def series_folder(
    label: Literal["first", "last", "none"] = "none",
    header: bool = False,
    normalize: Normalize = "auto",
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Series of the user's own.

    ``train.npy`` is an array ``[N, T]`` or ``[N, T, C]``, NaN where a number is missing or a series has ended; its
    labels, words or numbers, are in ``train_labels.npy`` or, one a line, in ``train_labels.txt``. ``train.csv`` and
    ``train.tsv`` have a series of one channel a line, ``train.ts`` is a file of the UEA archive. ``val.*`` or
    ``test.*`` are the validation series.

    Args:
        label: Where it stands in a line of ``.csv`` and ``.tsv``.
        header: Whether the first line of these names the columns.
        normalize: auto: each channel by its mean and deviation in the training series.
        root: The folder.
        download: Not possible.

    Raises:
        ConfigError: If a file is missing or cannot be read, naming it and the row.
    """
    if root is None:
        raise ConfigError(f"data.root is not set: a folder of series; {LAYOUT}")
    folder = Path(os.path.expanduser(str(root)))
    train = _read(folder, "train", label, header)
    if train is None:
        raise ConfigError(f"data.root={folder}: no training series; {LAYOUT}")
    parts = ((name, _read(folder, name, label, header)) for name in VALIDATION)
    where, val = next(((name, part) for name, part in parts if part is not None), ("val", None))
    if val is not None and (val.labels is None) != (train.labels is None):
        raise ConfigError(f"data.root={folder}: of train and {where} one has labels and the other has none")
    why = " (auto)" if normalize == "auto" else ""
    return source_splits(train, val, "channel" if normalize == "auto" else normalize, why, where)


def _read(folder: Path, name: str, label: str, header: bool) -> Labelled | None:
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    found = [file for file in files if file.is_file()]
    if len(found) > 1:
        raise ConfigError(f"data.root={folder}: {' and '.join(file.name for file in found)}; keep one of them")
    if not found:
        return None
    if found[0].suffix == ".npy":
        return _array(found[0])
    if found[0].suffix == ".ts":
        return read_ts(found[0])
    return read_table(found[0], "," if found[0].suffix == ".csv" else "\t", label, header)


def _loaded(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"{file}: cannot be read as an array ({str(error).splitlines()[0]})") from None


def _array(file: Path) -> Labelled:
    values = _loaded(file)
    if values.ndim not in (2, 3) or values.dtype.kind not in "fiu" or not values.size:
        raise ConfigError(f"{file}: {values.dtype} {list(values.shape)}, wanted numbers [N, T] or [N, T, C]")
    values = (values[:, :, None] if values.ndim == 2 else values).astype(np.float64)
    bad = np.isinf(values).any((1, 2)) | np.isnan(values).all((1, 2))
    if bad.any():
        raise ConfigError(f"{file}: row {int(bad.argmax())} is infinite somewhere or has no numbers at all")
    return Labelled(list(torch.from_numpy(values)), _labels(file, len(values)))


def _labels(file: Path, count: int) -> list[str] | None:
    stem = file.with_name(f"{file.stem}_labels")
    array, text = stem.with_suffix(".npy"), stem.with_suffix(".txt")
    if array.is_file():
        found, where = [str(label) for label in _loaded(array).ravel().tolist()], array
    elif text.is_file():
        found, where = [line for _, line in lines(text)], text
    else:
        return None
    if len(found) != count:
        raise ConfigError(f"{where}: {len(found)} labels, and {file.name} has {count} series")
    return found
