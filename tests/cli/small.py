"""The words that make an experiment small: few images, short sides, narrow heads and memories, but its own rates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_zoo import config
from tests import helpers

SAMPLES = 48
ROWS = helpers.ROWS
DEPTH = 2  # of a transformer
SHORT = 64  # side of a photograph
NETWORK = {"ndf": 4, "n_rkhs": 8, "n_depth": 1, "depths": [1, 1, 1, 1]}  # of networks that say their sizes
REFERS = ("method.backbone.", "method.optimizer.", "data.augmentation.")  # copies of what stands elsewhere


def words(experiment: list[str], classes: int | None) -> list[str]:
    """The words of an experiment, and those that make it small."""
    before = config.plain(config.load(experiment))
    cfg = OmegaConf.create(before)
    _shrink(cfg, classes)
    after = config.plain(cfg)
    changed = [f"++{path}={_typed(x)}" for path, x in _changed(before, after) if not path.startswith(REFERS)]
    return [*experiment, *changed, "trainer=cpu", "report=false", "logger=none"]


def _shrink(cfg: DictConfig, classes: int | None) -> None:
    with open_dict(cfg):
        helpers._narrow(cfg.method)
        vit = "vit" in cfg.backbone._target_
        for node in (cfg.backbone, cfg.method.backbone):
            node.weights = None
            if vit:
                node.depth = DEPTH
            node.update({key: size for key, size in NETWORK.items() if key in node})
        for block in (cfg.method.get("block"), cfg.method.get("whole")):
            if block:  # of AMDIM, whose encoder ends in the same space
                block.width = NETWORK["n_rkhs"]
        if cfg.batch_norm.group is not None:
            cfg.batch_norm.group = ROWS // 2
        data: Any = cfg.data
        data.update(batch_size=ROWS, root=None, layout=None, workers=0)
        if data.get("unlabelled_per_labelled"):
            data.labels = 0.5
        data.source._target_ = "tests.cli.values.pictures"
        data.source.update(samples=SAMPLES, classes=classes and helpers.CLASSES)
        if not vit and not OmegaConf.is_config(data.image_size) and data.image_size > SHORT:
            data.image_size = SHORT


def _changed(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, x in after.items():
        inner, old = f"{path}.{key}" if path else str(key), before.get(key, "absent")
        if isinstance(x, dict) and isinstance(old, dict):
            yield from _changed(old, x, inner)
        elif x != old:
            yield inner, x


def _typed(x: Any) -> str:
    return x if isinstance(x, str) else json.dumps(x)
