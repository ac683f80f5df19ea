"""What the optimizer of a running training uses, written down from inside."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_zoo.data.image.arrays import Arrays
from ssl_zoo.data.image.synthetic import synthetic
from ssl_zoo.data.source import Splits
from ssl_zoo.optim.schedules import Progress


class Values(pl.Callback):
    """Write the values of every group in the first two steps, and at steps of a longer run; then end, as SIGTERM does.

    Args:
        path: Of the JSON file.
        batch: Samples of a step of the longer run.
        total, steps_per_epoch: Its length.
    """

    def __init__(self, path: str, batch: int, total: int, steps_per_epoch: float) -> None:
        self.path, self.batch, self.total = Path(path), batch, total
        self.steps_per_epoch = int(steps_per_epoch) if steps_per_epoch == int(steps_per_epoch) else steps_per_epoch
        self.used: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.used.append(numbers(trainer.optimizers[0]))
        if trainer.global_step < 2:
            return
        run = pl_module.progress
        found = {"used": self.used, "total": run.total, "steps_per_epoch": run.steps_per_epoch}
        bound = pl_module.recipe.bind(pl_module.named_parameters(), self.batch, fused=False)
        for step in (0, 1, self.total - 1):
            bound.apply(Progress(step, self.total, self.steps_per_epoch))
            found[str(step)] = numbers(bound.optimizer)
        self.path.write_text(json.dumps(found))
        os.kill(os.getpid(), signal.SIGTERM)


def numbers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Group -> its options that are numbers, lists of numbers or truths."""
    kinds = (int, float, bool, tuple, list)
    return {
        group["name"]: {
            key: list(x) if isinstance(x, tuple) else x
            for key, x in group.items()
            if key not in ("params", "fused", "foreach", "initial_lr") and isinstance(x, kinds)
        }
        for group in optimizer.param_groups
    }


def pictures(image_size: Any, channels: int, samples: int, classes: int | None, **_: Any) -> Splits:
    """Drawn images in place of any data set, whatever else its source is told."""
    found = synthetic(image_size, channels, samples=samples, val_samples=0, classes=classes)
    assert isinstance(found.train, Arrays)
    return found
