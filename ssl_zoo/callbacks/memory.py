"""How much memory a run takes at its peak."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ssl_zoo.callbacks.observe import say

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK_OF_RESIDENT = "5"  # what clears VmHWM: man 5 proc
MIB = 2**20


class PeakMemory(pl.Callback):
    """Log the largest memory between the starts of two epochs: of the GPU's tensors, or of the process on a CPU.

    A process holds its libraries and the data too: what settings cost is the difference of two runs. Where the system
    does not tell (another than Linux) the callback switches itself off and says so once.

    Logs ``memory/peak_mib`` at the end of each epoch, of the main process.
    """

    def __init__(self) -> None:
        self.enabled = True

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        try:
            _reset(method.device)
        except OSError as error:
            self.enabled = False
            say(f"memory is off: {error.filename}: {error.strerror}")

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        if self.enabled:
            method.report({"memory/peak_mib": _peak(method.device)})


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        RESET.write_text(PEAK_OF_RESIDENT)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.M)
    assert found is not None  # wherever the peak can be reset
    return int(found[1]) / 1024
