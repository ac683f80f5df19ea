"""Embeddings against rows of a memory bank."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.errors import require
from ssl_zoo.losses.nce import EPS, nce, picked_scores, sampled_softmax
from ssl_zoo.modules.float32 import Float32State

Contrast = Literal["nce", "sampled"]
CONTRASTS = ("nce", "sampled")


def candidates(index: Tensor, draw: Any, samples: int, count: int) -> Tensor:
    """``[B, 1 + count]`` rows to score: each sample's own, then rows drawn uniformly, with replacement.

    As the authors' alias sampler draws them: a sample may occur twice among its negatives, and be one itself.

    Args:
        index: ``[B]`` positions in the training set.
        draw: One row for each sample.
        samples: Rows of the bank.
        count: Negatives, K.
    """
    return torch.cat([index.unsqueeze(1), draw.integers("rows", samples, count).to(index.device)], dim=1)


class BankContrast(Float32State):
    """Loss of embeddings against picked rows of a bank, positive first; for NCE with the constant Z.

    Z of NCE is estimated once, on the first batch over all processes, and then kept for ever: in the checkpoint, as the
    authors do (``NCEAverage.py`` of zhirongw/lemniscate.pytorch@f7cfe29).

    Args:
        loss: ``nce``, or ``sampled`` for a softmax over the picked rows.
        temperature: > 0.
        samples: Rows of the bank.
        eps: Of NCE, as in :func:`ssl_zoo.losses.nce.nce`.
    """

    normaliser: Tensor  # Z; 0 until the first batch

    def __init__(self, loss: Contrast, temperature: float, samples: int, eps: float = EPS) -> None:
        super().__init__()
        require("loss", loss, CONTRASTS)
        self.loss = loss
        self.temperature = temperature
        self.samples = samples
        self.eps = eps
        self.known = loss != "nce"  # a Python flag, so that asking for it never waits for the device
        self.register_buffer("normaliser", torch.zeros(()))

    def get_extra_state(self) -> dict[str, bool]:
        return {"known": self.known}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.known = state["known"]

    def forward(self, queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        """Mean over the batch.

        Args:
            queries: ``[B, D]`` unit embeddings.
            keys: ``[N, D]`` bank.
            rows: ``[B, 1 + K]`` rows to score, the positive first.
        """
        scores = picked_scores(queries, keys, rows)                                  # [B, 1 + K]
        if self.loss == "sampled":
            return sampled_softmax(scores, self.temperature)
        if not self.known:
            self._estimate(scores.detach())
        return nce(scores, self.temperature, self.normaliser, self.samples, self.eps)

    @torch.no_grad()
    def _estimate(self, scores: Tensor) -> None:
        mean = mean_over_ranks(torch.exp(scores / self.temperature).mean())
        self.normaliser.copy_(self.samples * mean)
        self.known = True
