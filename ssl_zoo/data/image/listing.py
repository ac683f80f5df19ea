"""All images below a folder, and what is no image there; kept in a file until a folder changes."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_zoo import files
from ssl_zoo.data.image.suffixes import readable, suffix
from ssl_zoo.errors import ConfigError

INDEX_VERSION = 2
# What systems and network drives put beside other people's files; so do hidden names.
NOT_DATA = {
    "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "__pycache__", "lost+found",
    "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip


class Listing(NamedTuple):
    """Names below a folder, relative to it."""

    paths: list[str]  # of images, sorted
    folders: list[str]  # all that were looked into; "" is the folder itself
    skipped: dict[str, int]  # suffix -> number of files that are no images


def is_data(name: str) -> bool:
    """Whether a file or folder is somebody's, rather than a system's."""
    return not name.startswith(".") and name.lower() not in NOT_DATA


def listed(root: Path, cache: str | bool | None, without: tuple[str, ...] = ()) -> Listing:
    """What lies below ``root``, from the kept list if no folder has changed since.

    Args:
        root: Links below it are followed, hidden entries are not.
        cache: Folder of the kept list; None: ``~/.cache/ssl_zoo``; False: none.
        without: Folders right below ``root`` that are not looked into.

    Raises:
        ConfigError: If one of the folders may not be looked into.
    """
    told = {"version": INDEX_VERSION, "root": str(root), "without": list(without), "suffixes": sorted(readable())}
    file = None if cache is False else _cache_file([str(root), *without], cache)
    known = None if file is None else _kept(file, root, told)
    if known is not None:
        return known
    paths: list[str] = []
    stamps: dict[str, int] = {}
    skipped: Counter[str] = Counter()
    images = readable()
    for folder, stamp, names in _walk(root, without):
        stamps[folder] = stamp
        for name in names:
            ending = suffix(name)
            if ending in images:
                paths.append(os.path.join(folder, name) if folder else name)
            else:
                skipped[ending] += 1
    paths.sort()
    if file is not None and paths:
        _keep(file, {**told, "folders": stamps, "paths": paths, "skipped": dict(skipped)})
    return Listing(paths, list(stamps), dict(skipped))


def _walk(root: Path, without: tuple[str, ...]) -> Iterator[tuple[str, int, list[str]]]:
    """(folder relative to ``root``, time of its last change, names of files in it) for ``root`` and all below it."""
    stack, seen = [""], set()
    while stack:
        folder = stack.pop()
        try:
            stat = os.stat(root / folder)
            if (stat.st_dev, stat.st_ino) in seen:
                continue  # a link back up the tree
            seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(root / folder) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries if is_data(entry.name))
        except OSError as error:
            raise ConfigError(
                f"{root / folder}: cannot be looked into ({error.strerror}); allow it (chmod), or move it away"
            ) from None
        stack += [os.path.join(folder, name) for name, deeper in found if deeper and (folder or name not in without)]
        yield folder, stat.st_mtime_ns, [name for name, deeper in found if not deeper]


def folders_in(root: Path) -> list[str]:
    """Names of the folders right below ``root``, sorted."""
    return sorted(entry.name for entry in _entries(root) if is_data(entry.name) and entry.is_dir())


def images_in(root: Path) -> list[str]:
    """Names of the images right below ``root``, sorted."""
    images = readable()
    names = (entry.name for entry in _entries(root) if is_data(entry.name) and not entry.is_dir())
    return sorted(name for name in names if suffix(name) in images)


def _entries(root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return list(entries)
    except OSError as error:
        raise ConfigError(f"{root}: cannot be looked into ({error.strerror})") from None


def _cache_file(names: list[str], cache: str | bool | None) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_zoo"
    base = Path(os.path.expanduser(cache)) if isinstance(cache, str) else base
    return base / f"files-{hashlib.sha256('/'.join(names).encode()).hexdigest()[:16]}.json"


def _kept(file: Path, root: Path, told: dict[str, Any]) -> Listing | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        if any(found[key] != value for key, value in told.items()):
            return None
        # A folder's time changes whenever an entry appears or goes, so that no file need be looked at.
        fresh = all(os.stat(root / folder).st_mtime_ns == stamp for folder, stamp in found["folders"].items())
        return Listing(found["paths"], list(found["folders"]), found["skipped"]) if fresh else None
    except (OSError, ValueError, KeyError):
        return None


def _keep(file: Path, content: dict[str, Any]) -> None:
    """Write the list beside its place and rename it: processes that start together never see half of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps(content))
    except (OSError, ValueError) as error:
        warnings.warn(f"cannot keep the list of images in {file} ({error}): every start will scan again", stacklevel=2)
