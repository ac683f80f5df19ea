"""Free Spoken Digit Dataset: ten digits by six speakers, 8 kHz."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import torch

from ssl_zoo.data.audio.build import Listed, Settings, sources
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Count

NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
TEST = 5  # recordings of a digit by a speaker, the first ones, that the README says are for testing
HINT = (
    "wanted the folder of {digit}_{speaker}_{index}.wav files, or the repository above it "
    "(github.com/Jakobovski/free-spoken-digit-dataset)"
)


def fsdd(
    label: Literal["digit", "speaker"] = "digit",
    max_damaged: Count | None = None,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Recordings 5 and on train, 0 to 4 validate, as the README of Jakobovski/free-spoken-digit-dataset splits them.

    Args:
        label: What is said, or who says it.
        max_damaged: Files that may be damaged; None: 100.
        root: The repository, or its folder ``recordings``.

    Raises:
        ConfigError: If there are no such files, or too many are damaged.
    """
    require("data.source.label", label, ("digit", "speaker"), ConfigError)
    if root is None or download:
        raise ConfigError(f"data.root={root} and nothing is downloaded: {HINT}")
    base = Path(os.path.expanduser(root))
    folder = base / "recordings" if (base / "recordings").is_dir() else base
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = [match for name in names if (match := NAME.fullmatch(name))]
    classes = sorted({match[label] for match in found})
    parts = []
    for test in (False, True):
        rows = [match for match in found if (int(match["index"]) < TEST) == test]
        labels = torch.tensor([classes.index(match[label]) for match in rows], dtype=torch.int64)
        parts.append(Listed(folder, [match[0] for match in rows], labels, classes))
    if not all(part.paths for part in parts):
        raise ConfigError(f"data.root={root}: found {len(found)} recordings of digits; {HINT}")
    return sources(parts[0], parts[1], Settings(memory=True, max_damaged=max_damaged))
