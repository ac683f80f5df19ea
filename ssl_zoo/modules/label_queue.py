"""First-in first-out memory of keys with their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.modules.queue import Queue

NONE = -1  # label of an empty slot, and of a key without label


class LabelQueue(Queue):
    """:class:`Queue` that holds the label of every key: ``label_queue`` of moco/kcl_builder.py of bingykang/BalFeat.

    Args:
        size, dim, rows: As of :class:`Queue`.
    """

    labels: Tensor

    def __init__(self, size: int, dim: int, rows: int | None = None) -> None:
        super().__init__(size, dim, rows)
        self.register_buffer("labels", torch.full((size,), NONE))
        self._staged_labels: list[Tensor] = []

    def push(self, rows: Tensor, labels: Tensor | None = None) -> None:
        """Stage ``[N, D]`` gathered keys and their ``[N]`` labels (None: without); every rank pushes the same rows."""
        super().push(rows)
        self._staged_labels.append(self.labels.new_full((len(rows),), NONE) if labels is None else labels.detach())

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        where = torch.arange(self.pushed, self.pushed + len(rows), device=self.keys.device) % self.size
        self.labels.index_copy_(0, where, self._staged_labels.pop(0).to(self.labels))
        super().write(rows)
