"""Memory of source classes and target instances (SpCL)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.modules.memory_bank import fill_with_unit
from ssl_zoo.modules.queue import Staged


class HybridMemory(Staged):
    """Unit rows that follow the features of a batch, and the class of each.

    The authors write in the backward pass, sample after sample in the order of the batch (``HM`` in spcl/models/hm.py
    of yxgeee/SpCL@01a486e): a row that comes twice moves twice. So does this one, after the backward pass and on
    gathered rows, which makes it independent of the number of processes.

    Args:
        rows: M.
        dim: Width of a row.
        momentum: Weight of the *old* row, in [0, 1].
    """

    features: Tensor
    labels: Tensor

    def __init__(self, rows: int, dim: int, momentum: float) -> None:
        super().__init__()
        # Own generator: building a memory must not change the networks that are initialised after it.
        start = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("features", F.normalize(start, dim=1))
        self.register_buffer("labels", torch.arange(rows))
        self.momentum = momentum
        self._updates: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def fill(self, features: Tensor, classes: Tensor | None = None) -> None:
        """Start anew from all instances.

        Args:
            features: ``[n, D]`` of the last n rows, of any length.
            classes: ``[n]`` class of each instance of a source, -1 of a target's; their centroids fill the other rows.
        """
        first = len(self.features) - len(features)
        unit = self.features[first:]
        fill_with_unit(unit, features)
        if first and classes is not None:
            known = classes >= 0
            sums = unit.new_zeros(first, unit.shape[1])
            sums.index_add_(0, classes[known].to(unit.device), unit[known.to(unit.device)])
            self.features[:first] = F.normalize(sums, dim=1)

    @torch.no_grad()
    def relabel(self, found: Tensor, source: Tensor) -> None:
        """Give every row its class: the source's in their order, then those that were found.

        Args:
            found: ``[T]`` number of each of the target's instances, any integers.
            source: ``[n]`` bool: which instances, in the last n rows, are the source's; they take no part, as the
                centroids of their classes do.
        """
        first = len(self.labels) - len(source)
        own = torch.full((len(source),), -1)
        own[~source] = first + found.unique(return_inverse=True)[1]
        self.labels.copy_(torch.cat([torch.arange(first), own]))

    def update(self, index: Tensor, rows: Tensor) -> None:
        """Stage ``m <- momentum * m + (1 - momentum) * row``, normalised, for gathered ``[N]`` and ``[N, D]``."""
        self._updates.append((index, rows.detach()))

    @torch.no_grad()
    def commit(self) -> None:
        updates, self._updates = self._updates, []
        for index, rows in updates:
            # One by one as the authors: which of them could move at once only the device knows, and it answers late.
            for place, row in zip(index.split(1), rows.to(self.features.dtype).split(1), strict=True):
                self._move(place, row)

    def _move(self, index: Tensor, rows: Tensor) -> None:
        moved = self.momentum * self.features[index] + (1 - self.momentum) * rows
        self.features[index] = moved / moved.norm(dim=1, keepdim=True)
