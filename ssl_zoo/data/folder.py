"""Any tree of image files, labelled by sub-folder or not."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_zoo import files
from ssl_zoo.data.chosen_files import chosen_files
from ssl_zoo.data.decode import EXTENSIONS, Shrink, decode
from ssl_zoo.data.fingerprint import chosen, digest, numbers, spread
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.sides import Side

INDEX_VERSION = 1
CONTENTS, BEGINNING = 32, 1 << 16  # files that a fingerprint looks into, and how far


class Folder:
    """Image files of one tree; decoded when asked for.

    Args:
        root: Where the tree stands.
        paths: Relative to it, sorted.
        labels: ``[N]`` int64, or None.
        classes: Their names.
        channels: 1 or 3: what files are converted to.
        damage_limit: So many damaged files are replaced.
        draft: Whether large JPEG files may be decoded smaller.
    """

    in_memory = False
    image_size: Side | None = None

    def __init__(
        self,
        root: Path,
        paths: list[str],
        labels: Tensor | None,
        classes: list[str] | None,
        channels: int,
        damage_limit: int,
        draft: bool = True,
    ) -> None:
        self.root = root
        self.draft = draft
        self.labels = labels
        self.classes = classes
        self.channels = channels
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
        return str(self.root / os.fsdecode(self._names[start : self._ends[index]].tobytes()))

    def fingerprint(self) -> str:
        names = digest(self._ends.astype("<i8"), self._names)
        rows = chosen(names, len(self))
        sizes = np.array([_size(self.path(i)) for i in rows], "<i8")
        # Raw images of one shape all have one size: a look into a few tells two sets with the same names apart.
        looked_into = b"".join(_beginning(self.path(rows[int(i)])) for i in spread(len(rows), CONTENTS))
        return digest("folder", names, numbers(self.labels), sizes, np.frombuffer(looked_into, np.uint8))

    def load(self, index: int, shrink: Shrink | None = None) -> Tensor:
        return decode(self.path(index), self.channels, shrink=shrink if self.draft else None)

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


def folder(
    root: str | None,
    channels: int,
    image_size: Side,
    labels: Literal["auto", "folder", "none"] = "auto",
    max_damaged: int | None = None,
    cache: str | bool | None = None,
    draft: bool = True,
    download: bool = False,
    files: str | None = None,
) -> Splits:
    """``root/train`` and ``root/val`` where they exist, else everything below ``root``.

    Args:
        root: The tree; links are followed, hidden entries are not.
        channels: 1 (grey) or 3.
        image_size: Not used here: views cut images of any size.
        labels: ``folder``: the first sub-folder is the class. ``none``: unlabelled, and no validation set. ``auto``:
            by folder if there are two or more and no image lies outside of them.
        max_damaged: Unreadable files that are replaced before the run ends; None: the larger of 100 and 1 %.
        cache: Folder for the list of files; None: ``~/.cache/ssl_zoo``; False: none.
        draft: Decode JPEG files that are more than four times as large as needed at 1/2, 1/4 or 1/8 of their size.
        download: Not possible for a folder.
        files: A text file that lists the training files, one path below ``root`` or ``root/train`` a line, alone or
            before a space and a label (ImageNet-LT); labels are those of the folders, and validated are images of
            the classes in the list. None: all files.

    Raises:
        ConfigError: No image, a class that only the validation set has, labels asked for where there are no folders, a
            list that names what is not there.
    """
    if root is None:
        raise ConfigError("data.root is not set: wanted the folder that holds the images (or train/ and val/)")
    if download:
        raise ConfigError("data.download=true: nobody knows where this folder comes from; fetch it and set data.root")
    base = Path(os.path.expanduser(str(root))).absolute()
    if not base.is_dir():
        raise ConfigError(f"data.root={root}: there is no such folder (looked at {base})")
    train_root = base / "train" if (base / "train").is_dir() else base
    paths = _listed(train_root, cache)
    if not paths:
        raise ConfigError(
            f"data.root={root}: no image below {train_root} (looked for {' '.join(EXTENSIONS)}, in all sub-folders, "
            "in train/ if there is one)"
        )
    if files is not None:
        paths = chosen_files(files, paths, train_root)
    limit = max(100, len(paths) // 100) if max_damaged is None else max_damaged
    classes = _classes(paths, labels, train_root)
    train = Folder(train_root, paths, _labels(paths, classes), classes, channels, limit, draft)
    if classes is None or train_root == base or not (base / "val").is_dir():
        return Splits(train, None)
    val_paths = _listed(base / "val", cache)
    if files is not None:
        val_paths = [path for path in val_paths if _top(path) in classes]
    _check_val(base / "val", val_paths, classes)
    return Splits(train, Folder(base / "val", val_paths, _labels(val_paths, classes), classes, channels, limit, draft))


def _top(path: str) -> str | None:
    """The first sub-folder of a relative path; None for a file that lies in none."""
    head, _, tail = path.partition(os.sep)
    return head if tail else None


def _classes(paths: list[str], labels: str, root: Path) -> list[str] | None:
    tops = {_top(path) for path in paths}
    names = sorted(name for name in tops if name is not None)
    if labels == "none" or labels == "auto" and (None in tops or len(names) < 2):
        return None
    if labels not in ("auto", "folder"):
        raise ConfigError(f"data.source.labels={labels}: wanted auto, folder or none")
    if None in tops:
        stray = next(path for path in paths if _top(path) is None)
        raise ConfigError(
            f"data.source.labels=folder: {root / stray} lies in no class folder; wanted {root}/CLASS/..., "
            "or data.source.labels=none"
        )
    return names


def _labels(paths: list[str], classes: list[str] | None) -> Tensor | None:
    if classes is None:
        return None
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[str(_top(path))] for path in paths], dtype=torch.int64)


def _check_val(root: Path, paths: list[str], classes: list[str]) -> None:
    if not paths:
        raise ConfigError(f"{root}: no image in it; remove the folder, or fill it with the class folders of train/")
    strange = next((path for path in paths if _top(path) not in classes), None)
    if strange is not None:
        raise ConfigError(
            f"{root / strange}: train/ has no class {_top(strange)!r}; val/ must hold the class folders of train/ "
            f"({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''}), or set data.source.labels=none"
        )


def _listed(root: Path, cache: str | bool | None) -> list[str]:
    """Relative paths of all images below ``root``, sorted; from the cached list if no folder has changed since."""
    file = None if cache is False else _cache_file(root, cache)
    known = None if file is None else _cached(file, root)
    if known is not None:
        return known
    paths: list[str] = []
    stamps: dict[str, int] = {}
    for folder, stamp, names in _walk(root):
        stamps[folder] = stamp
        paths += [os.path.join(folder, name) if folder else name for name in names]
    paths.sort()
    if file is not None and paths:
        _write(file, {"version": INDEX_VERSION, "root": str(root), "folders": stamps, "paths": paths})
    return paths


def _walk(root: Path) -> Iterator[tuple[str, int, list[str]]]:
    """(folder relative to ``root``, time of its last change, image names in it) for ``root`` and all below it."""
    stack, seen = [""], set()
    while stack:
        folder = stack.pop()
        stat = os.stat(root / folder)
        if (stat.st_dev, stat.st_ino) in seen:
            continue  # a link back up the tree
        seen.add((stat.st_dev, stat.st_ino))
        names = []
        with os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    stack.append(os.path.join(folder, entry.name))
                elif entry.name.lower().endswith(EXTENSIONS):
                    names.append(entry.name)
        yield folder, stat.st_mtime_ns, names


def _cache_file(root: Path, cache: str | bool | None) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_zoo"
    base = Path(os.path.expanduser(cache)) if isinstance(cache, str) else base
    return base / f"files-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"


def _cached(file: Path, root: Path) -> list[str] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        if found["version"] != INDEX_VERSION or found["root"] != str(root):
            return None
        # A folder's time changes whenever an entry appears or goes, so that no file need be looked at.
        fresh = all(os.stat(root / folder).st_mtime_ns == stamp for folder, stamp in found["folders"].items())
    except (OSError, ValueError, KeyError):
        return None
    return found["paths"] if fresh else None


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write the list beside its place and rename it: processes that start together never see half of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps(content))
    except (OSError, ValueError) as error:
        warnings.warn(f"cannot keep the list of images in {file} ({error}): every start will scan again", stacklevel=2)
