"""A tree of image files: which folder trains, which validates, which are classes; and a line for each decision."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.data.image import suffixes
from ssl_zoo.data.image.chosen_files import chosen_files
from ssl_zoo.data.image.listing import Listing, folders_in, images_in, listed
from ssl_zoo.data.split_names import split_of
from ssl_zoo.errors import ConfigError
from ssl_zoo.words import setting

SHOWN = 3  # names that a line says


class Rows(NamedTuple):
    """Image files and what they show.

    Args:
        root: That ``paths`` are relative to.
        paths: In the order of the samples.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Names of the labels.
    """

    root: Path
    paths: list[str]
    labels: Tensor | None
    classes: list[str] | None


class Parts(NamedTuple):
    """What a root gives, and what was decided on the way, a line each."""

    train: Rows
    val: Rows | None
    decisions: list[str]


class Options(NamedTuple):
    """As :func:`ssl_zoo.data.image.folder.folder` has them."""

    labels: Literal["auto", "folder", "none"] = "auto"
    cache: str | bool | None = None
    files: str | None = None
    train_folder: str | None = None
    val_folder: str | None = None


class Layout(NamedTuple):
    """Where the parts of a tree lie.

    Args:
        train, val: Folders; ``val`` None: there is none.
        without: Folders right below ``train`` that are no part of it.
        is_test: Whether ``val`` is called a test set, so that it may be without labels.
        unused: What lies beside the parts and is not read.
    """

    train: Path
    val: Path | None
    without: tuple[str, ...] = ()
    is_test: bool = False
    unused: tuple[str, ...] = ()


def tree(root: str, base: Path, options: Options) -> Parts:
    """The samples of a folder.

    Args:
        root: As it was typed, for messages.
        base: The folder.
        options: How it is read.

    Raises:
        ConfigError: No image, two folders for one part, a class that only the validation set has, labels asked for
            where there are no folders, a list that names what is not there.
    """
    layout = _layout(root, base, options)
    found = listed(layout.train, options.cache, layout.without)
    if layout.train == base and options.train_folder is None:
        inner = _inner(root, base, found)
        if inner is not None:  # data/images/train: the whole data set lies one folder further down
            deeper = tree(root, inner, options)
            return deeper._replace(decisions=[f"the data set lies in {inner.name}/", *deeper.decisions])
    if not found.paths:
        raise ConfigError(_nothing(root, layout.train, found.skipped))
    paths = found.paths if options.files is None else chosen_files(options.files, found.paths, layout.train)
    classes, why = _classes(paths, options.labels, layout.train)
    train = _rows(layout.train, paths, classes)
    val, skipped, of_val = _validation(layout, options, classes, why)
    decisions = [_told(layout, base, train, val, of_val), *_about_labels(options, why)]
    decisions += _barren(found) if options.labels != "none" else []
    told = suffixes.skipped(Counter(found.skipped) + Counter(skipped))
    return Parts(train, val, decisions + ([told] if told else []))


# Which folder is which


def _layout(root: str, base: Path, options: Options) -> Layout:
    folders = folders_in(base)
    named = {split: [name for name in folders if split_of(name) == split] for split in ("train", "val", "test")}
    others = [name for name in folders if split_of(name) is None]
    if options.train_folder == "." and options.val_folder is None:
        return Layout(base, None)  # what it holds are classes, whatever they are called
    val = _val(root, base, named, options)
    is_test = val is not None and options.val_folder is None and not named["val"]
    if options.train_folder is not None:
        train = _folder(base, options.train_folder, "train_folder")
        val = None if val == train else val
        without = (val.name,) if train == base and val is not None and val.parent == base else ()
        return _with_unused(base, folders, Layout(train, val, without, is_test))
    _check_single(root, "train", named["train"])
    if named["train"]:
        return _with_unused(base, folders, Layout(base / named["train"][0], val, (), is_test))
    splits = (*named["val"], *named["test"])
    if splits and not others and not images_in(base):
        raise ConfigError(
            f"data.root={root}: found {few(splits, '/')} and no folder of training images; call it train, or train on "
            f"one of these: {setting('data.root', str(base / splits[0]))}"
        )
    unused = tuple(f"{name}/" for name in splits if val is None or base / name != val)
    return Layout(base, val, splits, is_test, unused)


def _val(root: str, base: Path, named: dict[str, list[str]], options: Options) -> Path | None:
    if options.val_folder == "none":
        return None
    if options.val_folder is not None:
        return _folder(base, options.val_folder, "val_folder")
    candidates = named["val"] or named["test"]
    _check_single(root, "val", candidates)
    return base / candidates[0] if candidates else None


def _folder(base: Path, name: str, option: str) -> Path:
    path = Path(os.path.normpath(base / os.path.expanduser(name)))
    if not path.is_dir():
        there = few(folders_in(base), "/") or "no folder"
        raise ConfigError(f"data.source.{option}={name}: there is no such folder in {base}; there is {there}")
    return path


def _check_single(root: str, split: str, names: Sequence[str]) -> None:
    if len(names) > 1:
        kind = {"train": "training", "val": "validation"}[split]
        raise ConfigError(
            f"data.root={root}: {few(names, '/')} may all be the {kind} set; choose one with "
            f"{setting(f'data.source.{split}_folder', names[0])}"
        )


def _with_unused(base: Path, folders: Iterable[str], layout: Layout) -> Layout:
    """What lies beside the parts; nothing does where everything is training."""
    if layout.train == base:
        return layout
    parts = {layout.train, layout.val}
    unused = [f"{name}/" for name in folders if base / name not in parts]
    beside = len(images_in(base))
    return layout._replace(unused=(*unused, *([count(beside, "image") + f" in {base.name}/"] if beside else [])))


def _inner(root: str, base: Path, found: Listing) -> Path | None:
    """The one folder that holds a train/ with images of its own.

    Raises:
        ConfigError: There are several, or it is not alone: reading all would train on what is meant to judge.
    """
    tops = {path.split(os.sep, 1)[0] for path in found.paths}
    pairs = {tuple(folder.split(os.sep)[:2]) for folder in found.folders if os.sep in folder}
    split = sorted({top for top, below in pairs if top in tops and split_of(below) == "train"})
    if not split:
        return None
    if len(tops) == 1:
        return base / split[0]
    roots = setting("data.root", [str(base / name) for name in split])
    raise ConfigError(
        f"data.root={root}: {few(split, '/')} {'have' if len(split) > 1 else 'has'} training and other images apart "
        f"(train/ in each); choose one with {setting('data.root', str(base / split[0]))}, "
        f"read several with {roots}, or all images with data.source.train_folder=."
    )


# Labels


def _top(path: str) -> str | None:
    """The first sub-folder of a relative path; None for a file that lies in none."""
    head, _, tail = path.partition(os.sep)
    return head if tail else None


def _classes(paths: list[str], labels: str, root: Path) -> tuple[list[str] | None, str | None]:
    """Names of the classes; or None, and why there are no labels, unless none were wanted."""
    if labels not in ("auto", "folder", "none"):
        raise ConfigError(f"data.source.labels={labels}: wanted auto, folder or none")
    if labels == "none":
        return None, None
    tops = Counter(map(_top, paths))
    strays = tops.pop(None, 0)
    names = sorted(name for name in tops if name is not None)
    if not strays and (labels == "folder" or len(names) >= 2):
        return names, None
    stray = next((path for path in paths if _top(path) is None), "")
    if labels == "folder":
        raise ConfigError(
            f"data.source.labels=folder: {root / stray} lies in no class folder; wanted {root}/CLASS/..., "
            "or data.source.labels=none"
        )
    if len(names) < 2:
        return None, f"there is one class folder, {names[0]}/" if names else "there are no class folders"
    which = f"{stray} lies" if strays == 1 else f"{stray} and {strays - 1:,} more lie"
    return None, f"{which} beside the class folders {few(names, '/')}; move {'it' if strays == 1 else 'them'} into one"


def _labels(paths: list[str], classes: list[str] | None) -> Tensor | None:
    if classes is None:
        return None
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[str(_top(path))] for path in paths], dtype=torch.int64)


def _rows(root: Path, paths: list[str], classes: list[str] | None) -> Rows:
    return Rows(root, paths, _labels(paths, classes), classes)


def _validation(
    layout: Layout, options: Options, classes: list[str] | None, why: str | None
) -> tuple[Rows | None, dict[str, int], str]:
    """Validation samples, what was skipped among them, and a remark."""
    if layout.val is None:
        return None, {}, ""
    name = layout.val.name
    if classes is None:
        reason = "there are no labels" if why else "no labels are wanted"
        return None, {}, f"{name}/ is not used, for {reason}"
    found = listed(layout.val, options.cache)
    paths = found.paths
    if options.files is not None:
        paths = [path for path in paths if _top(path) in classes]
    strange = next((path for path in paths if _top(path) not in classes), None)
    if layout.is_test and (not paths or strange is not None):
        reason = "holds no image" if strange is None else f"{strange} lies in no class folder of the training set"
        return None, {}, f"{name}/ is not used: {reason}"
    if not paths:
        raise ConfigError(_nothing(str(layout.val), layout.val, found.skipped) + "; data.source.val_folder=none reads "
                          f"no validation set, or fill it with the class folders of {layout.train.name}/")
    if strange is not None:
        raise ConfigError(
            f"{layout.val / strange}: {layout.train.name}/ has no class {_top(strange)!r}; {name}/ must hold its class "
            f"folders ({few(classes)}); data.source.val_folder=none leaves {name}/ out, data.source.labels=none the "
            "labels"
        )
    remark = "there is no other validation set" if layout.is_test else ""
    return _rows(layout.val, paths, classes), found.skipped, remark


# Lines


def _told(layout: Layout, base: Path, train: Rows, val: Rows | None, remark: str) -> str:
    where = f"{layout.train.name}/" if layout.train != base else f"all of {base.name}/"
    if layout.train == base and layout.without:
        where = f"{base.name}/ without {few(layout.without, '/')}"
    classes = f" in {count(len(train.classes), 'class', 'classes')}" if train.classes else ""
    parts = [f"training set: {where} ({count(len(train.paths), 'image')}{classes})"]
    if val is None:
        parts.append(f"no validation set{f' ({remark})' if remark else ''}")
    else:
        more = f"; {remark}" if remark else ""
        parts.append(f"validation set: {val.root.name}/ ({count(len(val.paths), 'image')}{more})")
    if layout.unused:
        parts.append(f"not read: {few(layout.unused)}")
    return "; ".join(parts)


def _about_labels(options: Options, why: str | None) -> list[str]:
    return [f"no labels: {why}"] if why else []


def _barren(found: Listing) -> list[str]:
    """Class folders that are none, because nothing in them can be read."""
    classes = {_top(path) for path in found.paths} - {None}
    tops = {folder.split(os.sep, 1)[0] for folder in found.folders if folder}
    empty = sorted(tops.difference(classes)) if classes else []  # type: ignore[arg-type]
    return [f"no class: {few(empty, '/')} ({'it holds' if len(empty) == 1 else 'they hold'} no image)"] if empty else []


def _nothing(root: str, looked: Path, skipped: dict[str, int]) -> str:
    told = suffixes.skipped(skipped)
    kinds = len(suffixes.readable())
    return (
        f"data.root={root}: no image below {looked} (looked for .jpg .png .tif .npy and {kinds - 4} more kinds, in all "
        f"sub-folders{'; ' + told if told else ''})"
    )


def count(n: int, one: str, several: str | None = None) -> str:
    """``1 image``, ``1,200 images``."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def few(names: Sequence[str], end: str = "") -> str:
    """``a/, b/, c/ and 12 more``."""
    shown = ", ".join(f"{name}{end}" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
