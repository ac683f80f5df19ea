"""A callback that notes what a training takes of the machine as it goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch


class Watch(pl.Callback):
    """Write ``step, resident KiB, open files, CPU seconds, yardstick`` every so many steps; Linux.

    The yardstick is the CPU seconds of a fixed piece of work: where other programs make it slower they make a step
    slower too. Its own seconds are left out of those of the training.
    """

    def __init__(self, out: str, every: int) -> None:
        self.out = Path(out)
        self.every = every
        self.own = 0.0
        self.matrix = torch.full((256, 256), 1 / 256)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every:
            return
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        files = len(os.listdir("/proc/self/fd"))
        before = time.process_time()
        for _ in range(20):
            self.matrix @ self.matrix  # noqa: B018
        yardstick = time.process_time() - before
        self.own += yardstick
        with self.out.open("a") as file:
            print(trainer.global_step, resident, files, before + yardstick - self.own, yardstick, file=file)
