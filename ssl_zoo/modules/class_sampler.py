"""Rows of a bank to contrast with, chosen by class."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ssl_zoo.errors import require

Pairing = Literal["exact", "relax"]
BITS = 31  # of a drawn integer


class ClassSampler(nn.Module):
    """A positive of the same class and negatives of the other classes, as ``CIFAR100InstanceSample`` of RepDistiller.

    The labels of the training set arrive by :meth:`learn`; before that, and for samples without a label, any other
    class is possible: their negatives are drawn from all rows. Labels are the data's and in no checkpoint.

    Args:
        samples: Rows of the bank, N.
        negatives: Rows of other classes for each sample, K.
        positive: ``exact``: the sample itself; ``relax``: any sample of its class, itself included.
        distinct: No negative twice, where the other classes have that many samples (at a cost of ``B * N`` numbers);
            else with replacement.
    """

    labels: Tensor  # [N], -1 = none
    by_class: Tensor  # [N] rows, one class after the other
    start: Tensor  # [N] where the class of a sample begins in ``by_class``
    size: Tensor  # [N] how many samples it has; 0 for a sample without label

    def __init__(self, samples: int, negatives: int, positive: Pairing = "exact", distinct: bool = True) -> None:
        super().__init__()
        require("positive", positive, get_args(Pairing))
        self.samples = samples
        self.negatives = negatives
        self.positive = positive
        self.distinct = distinct
        for name in ("labels", "by_class", "start", "size"):
            self.register_buffer(name, torch.zeros(samples, dtype=torch.int64), persistent=False)
        self.learn(torch.full((samples,), -1))

    def learn(self, labels: Tensor) -> None:
        """Take the labels ``[N]`` of all training samples, by index.

        Raises:
            ValueError: If there are not N of them, or all have one class.
        """
        if len(labels) != self.samples:
            raise ValueError(f"got {len(labels)} labels for {self.samples} training samples")
        labels = labels.to(self.labels.device)
        ordered, by_class = labels.sort(stable=True)
        start = torch.searchsorted(ordered, labels)
        size = torch.searchsorted(ordered, labels, right=True) - start
        size = size.where(labels >= 0, 0)
        pool = self.samples - int(size.max())
        if pool == 0:
            raise ValueError("all training samples have one class: there is no negative of another")
        self.without_replacement = self.distinct and self.negatives <= pool
        for buffer, new in ((self.labels, labels), (self.by_class, by_class), (self.start, start), (self.size, size)):
            buffer.copy_(new)

    def forward(self, index: Tensor, draw: Any) -> Tensor:
        """``[B, 1 + K]`` rows for the samples ``index``, positive first.

        Args:
            index: ``[B]`` positions in the training set.
            draw: One row for each sample.
        """
        start, size = self.start[index, None], self.size[index, None]                # [B, 1]
        positive = index[:, None]
        if self.positive == "relax":
            drawn = self.by_class[start + self._below(size, draw, "positive", 1)]
            positive = torch.where(size > 0, drawn, positive)
        if self.without_replacement:
            place = self._distinct(start, size, draw)
        else:
            place = self._below(self.samples - size, draw, "negatives", self.negatives)
            place = place + torch.where(place >= start, size, 0)  # skip the places of the own class
        return torch.cat([positive, self.by_class[place]], dim=1)

    def _below(self, high: Tensor, draw: Any, name: str, count: int) -> Tensor:
        """``[B, count]`` integers in [0, high), where ``high`` ``[B, 1]`` differs from row to row."""
        return (draw.integers(name, 1 << BITS, count).to(high.device) * high) >> BITS

    def _distinct(self, start: Tensor, size: Tensor, draw: Any) -> Tensor:
        """``[B, K]`` different places outside of the own class: those with the smallest of N drawn numbers."""
        number = draw.integers("negatives", 1 << BITS, self.samples).to(start.device)  # [B, N]
        place = torch.arange(self.samples, device=start.device)
        own = (place >= start) & (place < start + size)
        return number.masked_fill(own, 1 << BITS).argsort(dim=1, stable=True)[:, : self.negatives]
