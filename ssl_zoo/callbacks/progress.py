"""What a person sees of a run: a live bar on a terminal, one line per epoch in a log."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from torch import Tensor

from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import is_main
from ssl_zoo.ranges import Size

ESTIMATE_AFTER = 10  # optimizer steps: the very first ones are slow


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    whole = int(round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def summary(metrics: dict[str, float]) -> str:
    """The words for the metrics that are there: accuracies in percent, speed, share of waiting."""
    patterns = {
        "train/loss": "loss {:.4f}",
        "probe/top1": "probe {:.1f} %",
        "knn/top1": "kNN {:.1f} %",
        "collapse/std": "std {:.2f}",
        "throughput/samples_per_s": "{:.0f} samples/s",
    }
    parts = [pattern.format(metrics[name]) for name, pattern in patterns.items() if name in metrics]
    if "throughput/data_wait" in metrics:
        parts.append(f"waiting for data {metrics['throughput/data_wait']:.0%}")
    return "  ".join(parts)


class Progress(pl.Callback):
    """Live bar on a terminal and, in both cases, one line per epoch: loss, accuracies, speed, time left.

    The loss of the line is the mean over the epoch so far as this process saw it. Stands last in the list of
    callbacks, after those whose numbers it prints; the trainer's own bar is to be off (``enable_progress_bar=False``).

    Args:
        live: Whether to draw the bar; ``null``: only when the output is a terminal.
        every_n_steps: Optimizer steps between refreshes of the loss in the bar; each waits for the device once.
    """

    def __init__(self, live: bool | None = None, every_n_steps: Size = 20) -> None:
        self.live = live
        self.every_n_steps = every_n_steps
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._losses: Tensor | None = None  # sum over the epoch, on the device
        self._batches = 0
        self._started, self._first_step = 0.0, 0
        self._estimated = False

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._started, self._first_step = time.perf_counter(), trainer.global_step
        live = self.console.is_terminal if self.live is None else self.live
        if live and is_main():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
            self._bar = Bar(*columns, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("epoch", words="")
        self._begin(trainer)  # a run that resumes inside an epoch does not call on_train_epoch_start

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._losses, self._batches = None, 0
        if self._bar is not None:
            self._bar.reset(self._task, total=int(trainer.num_training_batches), description=self._epoch(trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if isinstance(outputs, dict) and "loss" in outputs:
            loss = outputs["loss"].detach().float() * trainer.accumulate_grad_batches
            self._losses = loss if self._losses is None else self._losses + loss
            self._batches += 1
        self._estimate(trainer, method)
        if self._bar is None:
            return
        self._bar.update(self._task, completed=batch_idx + 1)
        if trainer.global_step % self.every_n_steps == 0:
            words = summary({**method.metrics, **self._loss()})
            self._bar.update(self._task, words=f"{words}  left {self._left(trainer, method)}")

    def _estimate(self, trainer: pl.Trainer, method: Any) -> None:
        """Say once, after the first steps, how long the run will take."""
        if self._estimated or trainer.global_step < self._first_step + ESTIMATE_AFTER:
            return
        self._estimated = True
        if is_main():
            left = self._left(trainer, method)
            self.console.print(f"estimated time: {left}, from the first {ESTIMATE_AFTER} steps", markup=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        words = summary({**method.metrics, **self._loss()})
        line = f"{self._epoch(trainer)}  {words}  left {self._left(trainer, method)}"
        if is_main():
            self.console.print(line, markup=False)

    def on_train_end(self, trainer: pl.Trainer, method: Any) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, method: Any, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _loss(self) -> dict[str, float]:
        if self._losses is None:
            return {}
        with torch.no_grad():
            return {"train/loss": (self._losses / self._batches).item()}

    @staticmethod
    def _epoch(trainer: pl.Trainer) -> str:
        last = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else "?"
        return f"epoch {trainer.current_epoch + 1}/{last}"

    def _left(self, trainer: pl.Trainer, method: Any) -> str:
        """Time to the last step at the speed of this session, evaluation included."""
        done = trainer.global_step - self._first_step
        if done <= 0:
            return "?"
        rest = max(method.progress.total - trainer.global_step, 0)
        return clock((time.perf_counter() - self._started) / done * rest)
