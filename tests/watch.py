"""A callback that notes what a training takes of the machine as it goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class Watch(pl.Callback):
    """Write ``step, resident KiB, open files, seconds, CPU seconds`` every so many steps; Linux."""

    def __init__(self, out: str, every: int) -> None:
        self.out = Path(out)
        self.every = every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every:
            return
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        files = len(os.listdir("/proc/self/fd"))
        with self.out.open("a") as file:
            print(trainer.global_step, resident, files, time.perf_counter(), time.process_time(), file=file)
