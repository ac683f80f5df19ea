"""Stops a run at a loss that is not a number, and says where it began."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import any_rank, gather_lists
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Count, Size


class NonFiniteLoss(ConfigError):
    """The loss became NaN or infinite. Told without a traceback, like a wrong configuration: that is what mends it."""


class NaNGuard(pl.Callback):
    """Stop the run when a loss is not finite, naming the first bad step and its samples.

    Losses stay on the device until they are read, every N optimizer steps, at the end of an epoch, and before a
    checkpoint is written, so that no checkpoint holds weights from after a bad loss.

    Args:
        every_n_steps: Optimizer steps between readings; each reading waits for the device once.
        show: Number of sample indices in the message.
    """

    def __init__(self, every_n_steps: Size = 50, show: Count = 16) -> None:
        self.every_n_steps = every_n_steps
        self.show = show
        self._pending: list[tuple[int, Tensor, Tensor]] = []  # (step, loss, sample indices) not read yet
        self._read_at = 0
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        self._pending, self._read_at = [], trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, method: Any, batch: Batch, batch_idx: int) -> None:
        # The step that this micro-batch belongs to: the counter has moved on by the time its loss is here.
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if isinstance(outputs, dict) and "loss" in outputs:
            self._pending.append((self._step, outputs["loss"].detach(), batch.index))
        if trainer.global_step >= self._read_at + self.every_n_steps:
            self.check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        self.check(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, method: Any, checkpoint: dict[str, Any]) -> None:
        self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Read the losses kept so far; all ranks must call it at the same place.

        Raises:
            NonFiniteLoss: With the first bad step, its loss and the indices of its samples, on every rank.
        """
        self._read_at = trainer.global_step
        pending, self._pending = self._pending, []
        losses = torch.stack([loss for _, loss, _ in pending]).tolist() if pending else []
        bad = [(entry[0], value, entry[2]) for entry, value in zip(pending, losses, strict=True)
               if not math.isfinite(value)][:1]  # fmt: skip
        if not any_rank(bool(bad)):
            return
        found = gather_lists([(step, value, index.tolist()) for step, value, index in bad])
        first = min(step for step, _, _ in found)
        worst = [entry for entry in found if entry[0] == first]
        samples = [i for _, _, index in worst for i in index]
        raise NonFiniteLoss(self._words(first, worst[0][1], samples))

    def _words(self, step: int, value: float, samples: list[int]) -> str:
        shown = ", ".join(map(str, samples[: self.show])) + (", ..." if len(samples) > self.show else "")
        return (
            f"the loss became {value} at step {step} (counted from 0); the run stops. Its batch holds {len(samples)} "
            f"samples, training indices [{shown}].\n"
            "What helps most often: a lower learning rate (optimizer.values.lr) or a longer warm-up, trainer.clip="
            "{mode: global, value: 1.0}, trainer.precision=32 instead of 16-bit, and a look at these samples. "
            "No checkpoint was written after that step."
        )
