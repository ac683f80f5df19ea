"""Callbacks that end a run from inside, as the system would."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Kill(pl.Callback):
    """Send ``signal_name`` to this process after optimizer step ``step``, in the middle of the loop."""

    def __init__(self, step: int, signal_name: str = "SIGKILL") -> None:
        self.step = step
        self.signal = signal.Signals[signal_name]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signal)


class KillOnce(Kill):
    """The same, unless the file ``marker`` says that it has been done."""

    def __init__(self, step: int, marker: str, signal_name: str = "SIGKILL") -> None:
        super().__init__(step, signal_name)
        self.marker = Path(marker)

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            super().on_train_batch_end(trainer, *rest)


class KillInEvaluation(pl.Callback):
    """SIGTERM after step ``step``, the last one of an epoch; then SIGKILL before the epoch has been evaluated."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Spoil(pl.Callback):
    """Makes a folder where the report wants to write a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_end(self, *_: Any) -> None:
        self.path.mkdir()


class Wait(pl.Callback):
    """Take ``seconds`` longer for each step, so that a run lives while a test looks at it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(self.seconds)
