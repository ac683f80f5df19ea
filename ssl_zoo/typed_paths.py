"""Settings that may be paths, which are meant from where the command was typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PATHS = (
    "checkpoint", "data.root", "data.pseudo_labels", "data.source.cache", "data.source.table",
    "method.teacher.checkpoint", "backbone.weights", "resume",
)  # fmt: skip


def seen_from(home: Path, cfg: DictConfig) -> None:
    """Make absolute, in place, what is a path that exists; anything else stays as it was typed.

    Args:
        home: The folder in which it was typed.
        cfg: Of a training or an evaluation.
    """
    for path in PATHS:
        value = OmegaConf.select(cfg, path)
        if OmegaConf.is_list(value):
            OmegaConf.update(cfg, path, [_from(home, one) for one in value])
        elif value is not None:
            OmegaConf.update(cfg, path, _from(home, value))


def _from(home: Path, value: Any) -> Any:
    path = home / os.path.expanduser(value) if isinstance(value, str) else home
    return str(path) if isinstance(value, str) and path.exists() else value
