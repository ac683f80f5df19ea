"""What the network gave for the samples of an epoch, for the clustering that begins the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.modules.memory_bank import BankType, MemoryBank, fill_with_unit


class EpochMemory(nn.Module):
    """Unit embeddings of some views of each sample, and which samples an epoch has seen (DeepCluster-v2).

    Rows are samples. The authors' memory has the order of the loader; here a sample that an epoch leaves out has a row
    from earlier, which :attr:`seen` leaves out. A write is staged until the backward pass is over.

    Args:
        samples: N, of the training set.
        dim: Width of an embedding.
        views: Banks, one for each remembered view.
        dtype: Of the rows: float32, float16 or bfloat16.

    Raises:
        ValueError: Without views.
    """

    seen: Tensor  # [N] bool

    def __init__(self, samples: int, dim: int, views: int, dtype: BankType = "float32") -> None:
        super().__init__()
        if views < 1:
            raise ValueError(f"method.banks={views}: wanted 1 or more, the global views whose embeddings are clustered")
        self.banks: Any = nn.ModuleList(MemoryBank(samples, dim, 0.0, dtype, "sphere", seed=i) for i in range(views))
        self.register_buffer("seen", torch.zeros(samples, dtype=torch.bool))

    @torch.no_grad()
    def fill(self, z: Tensor) -> None:
        """Take ``[N, D]`` embeddings of all samples, the same for every view."""
        for bank in self.banks:
            fill_with_unit(bank.keys, z)
        self.seen.fill_(True)

    def update(self, index: Tensor, z: Sequence[Tensor]) -> None:
        """Stage ``[N, D]`` embeddings of the first views of the samples ``index``, gathered over ranks."""
        if len(z) != len(self.banks):
            raise ValueError(f"method.banks={len(self.banks)} views are remembered and a batch has {len(z)}")
        self.seen.index_fill_(0, index, True)
        for bank, view in zip(self.banks, z, strict=True):
            bank.update(index, view)

    def rows(self, view: int, index: Tensor) -> Tensor:
        """``[M, D]`` embeddings of a view, in turn: view 2 of two is view 0 again."""
        return self.banks[view % len(self.banks)].rows(index)

    def forget(self) -> None:
        """Another epoch begins: no sample has been seen in it."""
        self.seen.zero_()
