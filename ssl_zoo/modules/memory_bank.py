"""One remembered embedding for every training sample."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.errors import require
from ssl_zoo.modules.queue import Staged

BankType = Literal["float32", "float16", "bfloat16"]
BankStart = Literal["uniform", "sphere"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STARTS = ("uniform", "sphere")
BLOCK = 2**16  # rows that are normalised at a time


def bank_bytes(samples: int, dim: int, dtype: BankType = "float32") -> int:
    """Memory of a bank: 656 MB for ImageNet's 1,281,167 images at 128 numbers in float32, half of that in float16."""
    return samples * dim * _dtype(dtype).itemsize


def _dtype(name: str) -> torch.dtype:
    require("bank_dtype", name, DTYPES)
    return DTYPES[name]


class MemoryBank(Staged):
    """Memory bank of InstDisc, https://arxiv.org/abs/1805.01978 (Sec. 3.2): the past embedding of each sample.

    ``row <- momentum * row + (1 - momentum) * new``, then unit length. Reading (``keys``, :meth:`rows`) and writing
    (:meth:`update`) are separate calls, and a write is only staged until the backward pass is over, so that a sample
    is scored against what was known before its step. Every rank writes the same gathered rows.

    A sample that occurs twice in one write gets its last occurrence in the gathered order, blended with the row from
    before the write (the authors' ``index_copy_`` leaves open which); two writes of one step follow one another.

    Args:
        samples: Rows N; the position of a sample in the training set is its row for ever.
        dim: Width of an embedding.
        momentum: Weight of the old row, in [0, 1].
        dtype: Of the rows; arithmetic is float32 or better. :func:`bank_bytes` gives the cost.
        start: ``uniform``: each entry in +-sqrt(3 / dim), lengths near 1 (the code of InstDisc, CMC and CRD);
            ``sphere``: unit rows in random directions (PyContrast's ``RGBMem``).
        seed: Of the start; banks of one method take different ones.

    Raises:
        ValueError: Without samples, or on an unknown dtype or start, or a momentum outside [0, 1].
    """

    keys: Tensor  # [N, D]

    def __init__(
        self,
        samples: int,
        dim: int,
        momentum: float = 0.5,
        dtype: BankType = "float32",
        start: BankStart = "uniform",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"a memory bank has one row for each training sample, and there are {samples}: "
                             "it needs data of known size")
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"bank_momentum={momentum}: wanted the weight of the old row, 0 to 1")
        require("start", start, STARTS)
        self.momentum = momentum
        # Own generator: building a bank must not change the networks that are initialised after it.
        generator = torch.Generator().manual_seed(seed)
        if start == "uniform":
            rows = torch.rand(samples, dim, generator=generator).sub_(0.5).mul_(2 * math.sqrt(3 / dim))
        else:
            rows = F.normalize(torch.randn(samples, dim, generator=generator), dim=1)
        self.register_buffer("keys", rows.to(_dtype(dtype)))
        self._updates: list[tuple[Tensor, Tensor]] = []

    def rows(self, index: Tensor) -> Tensor:
        """``[B, D]`` rows of some samples, in float32 or better."""
        rows = self.keys[index]
        return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows

    def update(self, index: Tensor, rows: Tensor) -> None:
        """Stage new embeddings ``[N, D]`` of the samples ``index`` ``[N]``, gathered over ranks."""
        if len(index) != len(rows) or rows.shape[1] != self.keys.shape[1]:
            raise ValueError(f"got {list(rows.shape)} rows for {len(index)} samples of a bank "
                             f"{list(self.keys.shape)}")
        self._updates.append((index, rows.detach()))

    @torch.no_grad()
    def commit(self) -> None:
        updates, self._updates = self._updates, []
        for index, rows in updates:
            index, rows = _last_of_each(index, rows)
            old = self.rows(index)
            new = F.normalize(self.momentum * old + (1 - self.momentum) * rows.to(old.dtype), dim=1)
            self.keys.index_copy_(0, index, new.to(self.keys.dtype))


def fill_with_unit(kept: Tensor, rows: Tensor) -> None:
    """Write ``rows`` ``[N, D]``, brought to length 1, into ``kept`` ``[N, D]``, without a copy of them all."""
    for place, part in zip(kept.split(BLOCK), rows.split(BLOCK), strict=True):
        place.copy_(F.normalize(part, dim=1))


def _last_of_each(index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same samples, every occurrence of one with the rows of its last: writing order is then of no account."""
    index, order = index.sort(stable=True)
    last = torch.searchsorted(index, index, right=True) - 1
    return index, rows[order[last]]
