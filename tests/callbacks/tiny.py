"""A method with batch norm, dropout and a teacher, and data that stands in memory: what an observer could disturb."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.recipe import OptimizerRecipe

CLASSES, ROWS, SAMPLES, SIZE = 3, 12, 48, 6


class Rows(Logger):
    """Keeps what is logged: ``{step: {name: value}}``."""

    name, version = "rows", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, dict[str, Any]] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.setdefault(int(step or 0), {}).update(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def column(self, name: str) -> dict[int, Any]:
        return {step: row[name] for step, row in self.rows.items() if name in row}


class TinyMethod(Method):
    """Predicts a frozen teacher's output of the other view."""

    def __init__(self, give_features: bool = True, poison_step: int | None = None) -> None:
        net = nn.Sequential(nn.Linear(SIZE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 8))
        super().__init__(net, OptimizerRecipe(partial(torch.optim.SGD, momentum=0.9), {"lr": 0.5}))
        self.teacher = nn.Sequential(nn.Linear(SIZE, 8), nn.BatchNorm1d(8)).requires_grad_(False).eval()
        self.give_features = give_features
        self.poison_step = poison_step

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])
        loss = (h - self.teacher(batch.views[1])).square().mean()
        if self.progress.step == self.poison_step:
            loss = loss * float("nan")
        return {"loss": loss, **({"features": h} if self.give_features else {})}


class TinyData(pl.LightningDataModule):
    """Three noisy clusters; the validation loader is a torch ``DataLoader``, which draws from the global generator."""

    batch_size = ROWS

    def __init__(self, classes: int | None = CLASSES, validation: bool = True, val_labels: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.train_labels = torch.arange(SAMPLES) % CLASSES
        self.x = 2 * torch.eye(CLASSES, SIZE)[self.train_labels] + torch.randn(SAMPLES, SIZE, generator=generator)
        self.info = SimpleNamespace(classes=classes)
        self.validation = validation
        self.val_labels = self.train_labels if val_labels else None

    def train_dataloader(self) -> Any:
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(2)).split(ROWS)
        return DataLoader([self._batch(rows) for rows in order], batch_size=None)  # type: ignore[arg-type]

    def _batch(self, rows: Tensor) -> Batch:
        label = self.train_labels[rows] if self.info.classes else None
        return Batch([self.x[rows], self.x[rows] + 0.1], rows, label, rng=None)

    def val_loader(self) -> Any:
        if not self.validation:
            return None
        loader = self._evaluation(torch.arange(SAMPLES))
        loader.source = SimpleNamespace(labels=self.val_labels)
        return loader

    def train_eval_loader(self, rows: Tensor | None = None) -> Any:
        return self._evaluation(torch.arange(SAMPLES) if rows is None else rows)

    def _evaluation(self, rows: Tensor) -> Any:
        items = [(self.x[part], self.train_labels[part], part) for part in rows.split(7)]
        return DataLoader(items, batch_size=None)  # type: ignore[arg-type]


def fit(
    callbacks: Sequence[pl.Callback],
    data: TinyData | None = None,
    method: TinyMethod | None = None,
    resume: Path | None = None,
    logger: Logger | None = None,
    **options: Any,
) -> tuple[pl.Trainer, TinyMethod]:
    """Train on one CPU process from seed 0."""
    if method is None:
        method = tiny()
    options = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "logger": logger or False} | options
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(callbacks=list(callbacks), log_every_n_steps=1, **quiet, **options)
    trainer.fit(method, datamodule=data or TinyData(), ckpt_path=resume)
    return trainer, method


def tiny(**options: Any) -> TinyMethod:
    pl.seed_everything(0, verbose=False)
    return TinyMethod(**options)


class Snapshot(pl.Callback):
    """After every step and epoch: generators, mode flags, and all tensors of the method."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, *_: Any) -> None:
        self._take(method)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        self._take(method)

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._take(method)

    def _take(self, method: nn.Module) -> None:
        tensors = {name: value.clone() for name, value in method.state_dict().items()}
        flags = [(name, part.training) for name, part in method.named_modules()]
        numbers = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
        self.seen.append((tensors, flags, *numbers))


def fake_trainer(**values: Any) -> Any:
    """The public attributes that a hook reads, without a run."""
    defaults = {"global_step": 0, "current_epoch": 0, "accumulate_grad_batches": 1, "max_epochs": 2, "max_steps": -1}
    return SimpleNamespace(
        **{**defaults, "should_stop": False, "num_training_batches": 4, "train_dataloader": None, **values}
    )


def fake_method(**values: Any) -> Any:
    method = SimpleNamespace(metrics={}, uniform_loss=None, progress=SimpleNamespace(total=100), **values)
    method.report = method.metrics.update
    return method


def meta_batch() -> tuple[dict[str, Tensor], Batch]:
    """A step on the meta device, where reading a value on the host is an error."""
    features = torch.empty(ROWS, 8, device="meta")
    label = torch.empty(ROWS, dtype=torch.int64, device="meta")
    return {"loss": torch.empty((), device="meta"), "features": features}, Batch([features], label, label, rng=None)
