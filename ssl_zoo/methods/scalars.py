"""What a step reports, on its way from the device to the loggers; nobody waits for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_zoo.distributed import mean_over_ranks


class Scalars:
    """Collects the scalars of the micro-batches of a step and sends their means to the host.

    The copy into page-locked memory runs behind the kernels of the step; the host asks later whether it has arrived.
    """

    def __init__(self) -> None:
        self._step: list[dict[str, Tensor]] = []
        self._sent: list[tuple[dict[str, Any], list[str], Tensor, Any]] = []

    def add(self, outputs: dict[str, Tensor], accumulate: int) -> None:
        """Keep what a micro-batch reports; Lightning has divided its loss by ``accumulate``."""
        row = {name: value.detach().float().reshape(()) for name, value in outputs.items() if value.numel() == 1}
        self._step.append({**row, "loss": row["loss"] * accumulate})

    def end_step(self, send: bool, **label: Any) -> None:
        """Forget the micro-batches; ``send``: start to copy their means over them and over ranks, first."""
        if send:
            names = list(self._step[-1])
            rows = torch.stack([torch.stack([row[name] for name in names]) for row in self._step])
            self._sent.append((label, names, *_to_host(mean_over_ranks(rows.mean(0)))))
        self._step.clear()

    def arrived(self, wait: bool = False) -> list[tuple[dict[str, Any], dict[str, float]]]:
        """(label, scalars) of what has arrived since the last call, in order; with ``wait``, of all that was sent."""
        ready = []
        while self._sent:
            label, names, values, arrival = self._sent[0]
            if arrival is not None and not arrival.query():
                if not wait:
                    break
                arrival.synchronize()
            ready.append((label, dict(zip(names, values.tolist(), strict=True))))
            self._sent.pop(0)
        return ready


def _to_host(values: Tensor) -> tuple[Tensor, Any]:
    """The copy, and the event of its arrival (None: it is there)."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return host, arrival
