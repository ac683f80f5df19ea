"""Sound files of people's own: a tree, or a table of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import torch

from ssl_zoo.data.audio.build import Listed, Settings, sources
from ssl_zoo.data.audio.decode import SUFFIXES
from ssl_zoo.data.image import csv_file
from ssl_zoo.data.image.listing import is_data
from ssl_zoo.data.source import Splits
from ssl_zoo.data.split_names import split_of
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Count, Size

Labels = Literal["auto", "folder", "none"]


def audio_folder(
    labels: Labels = "auto",
    sample_rate: Size | None = None,
    channels: Size = 1,
    resample: bool = False,
    memory: bool | Literal["auto"] = "auto",
    max_damaged: Count | None = None,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Training and validation recordings of a folder or of a table.

    Args:
        labels: ``folder``: the first sub-folder is the class; ``none``: unlabelled; ``auto``: by folder where no file
            lies outside of one and there are two or more; those of a table.
        sample_rate: In Hz; None: that of the first file.
        channels: 1: the mean of what a file has; otherwise files must have as many.
        resample: Whether files of other rates are resampled; otherwise they are refused.
        memory: Whether all is read at the start; auto: files of 64 MiB together.
        max_damaged: Files that may be damaged; None: the larger of 100 and 1 %.
        root: A folder, whose folders train and val (or test) are the parts where there are such; or a ``.csv`` or
            ``.tsv`` file of path,label[,split] with paths relative to it.

    Raises:
        ConfigError: No sound file, a class that only the validation set has, labels asked for where there are no
            folders, a file of another rate.
    """
    require("data.source.labels", labels, ("auto", "folder", "none"), ConfigError)
    if root is None or download:
        raise ConfigError(f"data.root={root} and nothing is downloaded: set data.root=DIR, the folder of the files")
    base = Path(os.path.expanduser(root)).absolute()
    settings = Settings(sample_rate, channels, resample, memory, max_damaged)
    if base.is_file():
        return _table(root, base, labels, settings)
    if not base.is_dir():
        raise ConfigError(f"data.root={root}: there is no such folder or table (looked at {base})")
    return _tree(root, base, labels, settings)


def _table(root: str, file: Path, labels: Labels, settings: Settings) -> Splits:
    if file.suffix.lower() not in csv_file.SUFFIXES:
        raise ConfigError(f"data.root={root} is a file; wanted a folder, or a {' or '.join(csv_file.SUFFIXES)} file")
    parts = csv_file.csv_file(f"data.root={root}", file, file.parent, labels)
    train, val = (None if rows is None else Listed(*rows) for rows in (parts.train, parts.val))
    assert train is not None
    return sources(train, val, settings, parts.decisions)


def _tree(root: str, base: Path, labels: Labels, settings: Settings) -> Splits:
    folders = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and is_data(entry.name))
    named = {part: [name for name in folders if split_of(name) == part] for part in ("train", "val", "test")}
    if not named["train"]:
        paths = _sounds(base)
        classes = _classes(root, base, paths, labels)
        return sources(_listed(root, base, paths, classes), None, settings, [f"training set: {len(paths):,} files"])
    inside = base / named["train"][0]
    paths = _sounds(inside)
    classes = _classes(root, inside, paths, labels)
    train = _listed(root, inside, paths, classes)
    held = next((base / name for name in (*named["val"], *named["test"])), None)
    val = None if held is None or classes is None else _listed(root, held, _sounds(held), classes)
    told = f"training set: {len(paths):,} files of {inside.name}/; " + (
        "no validation set" if val is None else f"validation set: {len(val.paths):,} of {val.root.name}/"
    )
    return sources(train, val, settings, [told])


def _sounds(folder: Path) -> list[str]:
    """Sound files below a folder, relative to it, sorted."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(filter(is_data, folders))
        near = os.path.relpath(place, folder)
        found += [os.path.normpath(os.path.join(near, x)) for x in names if is_data(x) and _is_sound(x)]
    return sorted(found)


def _is_sound(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _classes(root: str, base: Path, paths: list[str], labels: Labels) -> list[str] | None:
    """Names of the classes; None: unlabelled."""
    if not paths:
        endings = Counter(Path(name).suffix.lower() or name for _, _, names in os.walk(base) for name in names)
        there = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(3)) or "no file"
        raise ConfigError(f"data.root={root}: no sound file in {base} (found {there}); read are {', '.join(SUFFIXES)}")
    names = [Path(path).parts[0] if len(Path(path).parts) > 1 else None for path in paths]
    outside = next((path for path, name in zip(paths, names, strict=True) if name is None), None)
    found = sorted({name for name in names if name is not None})
    if labels == "folder" and outside is not None:
        raise ConfigError(f"data.source.labels=folder: {base / outside} lies in no folder of a class; move it into one")
    labelled = labels == "folder" or labels == "auto" and outside is None and len(found) > 1
    return found if labelled else None


def _listed(root: str, base: Path, paths: list[str], classes: list[str] | None) -> Listed:
    if not paths:
        raise ConfigError(f"data.root={root}: no sound file in {base}; read are {', '.join(SUFFIXES)}")
    if classes is None:
        return Listed(base, paths, None, None)
    number = {name: i for i, name in enumerate(classes)}
    strange = next((path for path in paths if Path(path).parts[0] not in number), None)
    if strange is not None:
        raise ConfigError(
            f"{base / strange}: its class {Path(strange).parts[0]!r} is none of the training set's "
            f"({', '.join(classes[:5])}); remove it, or call the folder as there"
        )
    labels = torch.tensor([number[Path(path).parts[0]] for path in paths], dtype=torch.int64)
    return Listed(base, paths, labels, classes)
