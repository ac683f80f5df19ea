"""How fast the run is, and whether it waits for data."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import world_size
from ssl_zoo.ranges import NonNegative, Size


class Throughput(pl.Callback):
    """Time the training loop over windows of N optimizer steps; evaluation between epochs is not counted.

    Logs ``throughput/samples_per_s`` (over all devices) and ``throughput/data_wait`` (share of the time, 0-1, that
    this process spent inside the training loader). Clocks are read on the host only: the accelerator never waits.

    Args:
        every_n_steps: Optimizer steps of a window; an epoch with fewer is a window of its own.
        warn_above: Share of waiting that is worth a warning, said once.
        patience: Windows in a row before it; the first window of a run, in which workers start, never counts.
    """

    def __init__(self, every_n_steps: Size = 50, warn_above: NonNegative = 0.2, patience: Size = 3) -> None:
        self.every_n_steps = every_n_steps
        self.warn_above = warn_above
        self.patience = patience
        self.latest: dict[str, float] = {}
        self._mark = 0.0
        self._seconds = 0.0
        self._samples = 0
        self._windows = 0
        self._slow = 0
        self._reported_at = 0
        self._epoch_at = 0

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._reported_at = self._epoch_at = trainer.global_step
        self._windows = self._slow = 0
        self._take_wait(trainer)
        self._mark = time.perf_counter()  # a run that resumes inside an epoch does not call on_train_epoch_start

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._epoch_at = trainer.global_step
        self._mark = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        now = time.perf_counter()
        self._seconds += now - self._mark
        self._mark = now
        self._samples += len(batch.index) * world_size()
        if trainer.global_step >= self._reported_at + self.every_n_steps:
            self._report(trainer, method)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        if self._samples and self._reported_at <= self._epoch_at:
            self._report(trainer, method)

    @staticmethod
    def _take_wait(trainer: pl.Trainer) -> float | None:
        take_wait = getattr(trainer.train_dataloader, "take_wait", None)  # a loader of the user's own may have none
        return None if take_wait is None else take_wait()

    def _report(self, trainer: pl.Trainer, method: Any) -> None:
        seconds = max(self._seconds, 1e-9)
        self.latest = {"throughput/samples_per_s": self._samples / seconds}
        wait = self._take_wait(trainer)
        if wait is not None:
            self.latest["throughput/data_wait"] = min(wait / seconds, 1.0)
        self._reported_at = trainer.global_step
        self._seconds, self._samples = 0.0, 0
        method.report(self.latest)
        self._windows += 1
        if self._windows > 1:
            self._judge(self.latest.get("throughput/data_wait", 0.0))

    def _judge(self, wait: float) -> None:
        if self._slow >= self.patience:
            return
        self._slow = self._slow + 1 if wait > self.warn_above else 0
        if self._slow == self.patience:
            rank_zero_warn(
                f"training waits for data {wait:.0%} of the time. Three knobs: data.workers (more, up to the number of "
                "cores), augmentation.where=device (views are made in batches where the network runs), and the files "
                "themselves (store the images near data.image_size, or packed, so that less is decoded).",
                category=UserWarning,
            )
