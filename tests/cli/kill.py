"""Callbacks that end a run from inside, as the system would."""

from __future__ import annotations

import os
import signal
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
