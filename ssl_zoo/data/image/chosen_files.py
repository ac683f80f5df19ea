"""A list of files that are a data set within a folder: ImageNet-LT, a subset of somebody's."""

from __future__ import annotations

import os
from pathlib import Path

from ssl_zoo.errors import ConfigError


def chosen_files(files: str, there: list[str], root: Path) -> list[str]:
    """Paths of a list, sorted, without repetitions.

    Args:
        files: A text file with a path on each line, alone or before a space and a label, which is not read. A path is
            relative to ``root``, or to the folder above it.
        there: Paths below ``root`` that can be chosen.
        root: The folder of the training images.

    Raises:
        ConfigError: If the list cannot be read, is empty, or names a file that is not there.
    """
    try:
        lines = Path(os.path.expanduser(files)).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ConfigError(f"data.source.files={files}: cannot be read ({reason}); wanted a text file with the path of "
                          "a training image on each line, or null for all images") from None
    known, chosen = set(there), set[str]()
    for number, line in enumerate(lines, start=1):
        path = _known(line.strip(), known, root)
        if path is None:
            raise ConfigError(f"data.source.files={files}: line {number} names {line.strip()!r}, which is not below "
                              f"{root}; set data.root to the folder that the list is of")
        chosen.add(path)
    chosen.discard("")
    if not chosen:
        raise ConfigError(f"data.source.files={files}: it names no file; set it to null for all images")
    return sorted(chosen)


def _known(line: str, known: set[str], root: Path) -> str | None:
    """The path of a line as ``known`` has it, "" for an empty line, None for what is not there."""
    before, _, _ = line.rpartition(" ")
    candidates = (line, before, line.removeprefix(f"{root.name}/"), before.removeprefix(f"{root.name}/"))
    return next((path for path in candidates if path in known or not line), None)
