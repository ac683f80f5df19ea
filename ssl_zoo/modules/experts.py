"""Parts of a mixture of experts: their heads, and the sums from which their prototypes are renewed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.losses.precision import full_precision
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Staged


class Experts(nn.Module):
    """``count`` heads on the same features: ``[B, in_features]`` to unit embeddings ``[B, count, out_features]``."""

    def __init__(self, head: Head, in_features: int, count: int) -> None:
        super().__init__()
        heads: list[Any] = [head(in_features) for _ in range(count)]
        self.heads = nn.ModuleList(heads)
        self.out_features = heads[0].out_features

    def forward(self, h: Tensor) -> Tensor:
        return torch.stack([F.normalize(head(h), dim=1) for head in self.heads], dim=1)


class ExpertCentres(Staged):
    """Sums of embeddings by expert over an epoch: writing (``add``) and reading (``take``) are separate calls.

    Args:
        count: Experts, K.
        dim: Width of an embedding.
    """

    sums: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(count, dim))
        self.added = 0  # samples; a Python number, so that asking for it never waits for the device

    def get_extra_state(self) -> dict[str, int]:
        return {"added": self.added}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.added = state["added"]

    def add(self, v: Tensor, expert: Tensor) -> None:
        """Stage gathered embeddings ``[N, K, D]`` and the expert ``[N]`` of each; every rank adds the same rows."""
        self.added += len(v)
        self.stage(_sums(v, expert))

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        self.sums += rows.to(self.sums.dtype)

    @torch.no_grad()
    def take(self) -> Tensor:
        """``[K, D]`` unit directions of the sums, zeros for an expert without samples; begin anew."""
        centres = F.normalize(self.sums, dim=1)
        self.sums.zero_()
        self.added = 0
        return centres


@full_precision
def _sums(v: Tensor, expert: Tensor) -> Tensor:
    taken = F.one_hot(expert, v.shape[1]).to(v.dtype)  # [N, K]
    return torch.einsum("nk,nkd->kd", taken, v)
