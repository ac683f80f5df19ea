"""Samples that lie in memory as the rows of one tensor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound="Tensors")


class Tensors:
    """Base of sources of one tensor, see :class:`ssl_zoo.data.source.Source`.

    Args:
        values: ``[N, ...]`` float32, a sample a row.
        labels: ``[N]`` int64, -1 = none; None: unlabelled.
        classes: Their names.
    """

    in_memory = True
    damage_limit = 0

    def __init__(self, values: Tensor, labels: Tensor | None, classes: list[str] | None) -> None:
        self.values = values
        self.labels = labels
        self.classes = None if labels is None else classes

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, index: Tensor) -> Tensor:
        return self.values[index.to(self.values.device)]

    def load(self, index: int, hint: Any = None) -> Tensor:
        return self.values[index].cpu()

    def collate(self, samples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(samples))

    def to(self: T, device: torch.device) -> T:
        moved = copy.copy(self)
        moved.values, moved.labels = self.values.to(device), None if self.labels is None else self.labels.to(device)
        return moved
