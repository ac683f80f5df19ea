"""How much memory a training step takes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

MIB = 2**20


class Saved(saved_tensors_hooks):
    """Counts the bytes that operations inside keep for the gradient, each storage once.

    Args:
        known: Addresses of storages that do not count: parameters and buffers, which are there anyway.
    """

    def __init__(self, known: set[int] | None = None) -> None:
        self.known = known or set()
        self.sizes: dict[int, int] = {}
        super().__init__(self._pack, lambda x: x)

    def __enter__(self) -> Saved:  # type: ignore[override]
        super().__enter__()
        return self

    def _pack(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return x

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


class StepMemory(pl.Callback):
    """Log what the first step of each epoch holds, which no allocator and no earlier run of the process changes.

    Logs ``memory/state_mib`` (parameters and buffers: teachers, queues and banks too), ``memory/activations_mib`` (what
    its first micro-batch keeps for the gradient) and ``memory/step_mib``, their sum; on a GPU also
    ``memory/peak_mib``, the most that tensors took in the epoch. All are of the main process.
    """

    def __init__(self) -> None:
        self._saved: Saved | None = None
        self._found: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        if method.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(method.device)

    def on_train_batch_start(self, trainer: pl.Trainer, method: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._saved = Saved(set(state(method)))
            self._saved.__enter__()

    def on_before_backward(self, trainer: pl.Trainer, method: Any, loss: Tensor) -> None:
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        saved.__exit__()
        parts = {"state": sum(state(method).values()) / MIB, "activations": saved.bytes / MIB}
        self._found = {f"memory/{name}_mib": value for name, value in {**parts, "step": sum(parts.values())}.items()}

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        found, self._found = self._found, {}
        if method.device.type == "cuda":
            found["memory/peak_mib"] = torch.cuda.max_memory_allocated(method.device) / MIB
        if found:
            method.report(found)


def state(module: nn.Module) -> dict[int, int]:
    """The bytes of all parameters and buffers by the addresses of their storages."""
    storages = [tensor.untyped_storage() for tensor in (*module.parameters(), *module.buffers())]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
