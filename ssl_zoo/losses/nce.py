"""Instance discrimination against a memory bank: noise-contrastive estimation, sampled softmax, full softmax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.precision import autocast_off, full_precision, promoted

EPS = 1e-7  # of both denominators, ``NCECriterion.py`` of zhirongw/lemniscate.pytorch@f7cfe29
EPS_VISSL = 2.0**-23  # ``NCECriterion`` in nce_loss.py of facebookresearch/vissl@09270ed: the float32 epsilon
PICKED = 2**24  # numbers of picked rows held at a time, 64 MB in float32


def picked_scores(queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
    """Products of each query with rows of its own choice, without keeping a copy of the rows.

    Either the rows are fetched in parts (and again in the backward pass), or, where that moves less, all keys are
    scored and the wanted products picked.

    Args:
        queries: ``[B, D]``.
        keys: ``[N, D]`` of any floating type, without gradient; half types are promoted part by part.
        rows: ``[B, M]`` int64.

    Returns:
        ``[B, M]`` in float32 or better, differentiable once in ``queries``.
    """
    with autocast_off():
        return _Picked.apply(promoted(queries), keys.detach(), rows)


def _parts(rows: Tensor, dim: int) -> Iterator[slice]:
    step = max(PICKED // (rows.shape[1] * dim), 1)
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _all_at_once(keys: Tensor, rows: Tensor) -> bool:
    """Whether products with all keys (and their gradient) are fewer numbers than the picked rows."""
    return 2 * len(keys) <= rows.shape[1] * keys.shape[1]


class _Picked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(keys, rows)
        if _all_at_once(keys, rows):
            return (queries @ keys.to(queries.dtype).T).gather(1, rows)
        scores = queries.new_empty(rows.shape)
        for part in _parts(rows, keys.shape[1]):
            picked = keys[rows[part]].to(queries.dtype)                              # [b, M, D]
            scores[part] = torch.bmm(picked, queries[part].unsqueeze(2)).squeeze(2)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        keys, rows = ctx.saved_tensors
        if _all_at_once(keys, rows):
            weight = grad.new_zeros(len(rows), len(keys)).scatter_add_(1, rows, grad)
            return weight @ keys.to(grad.dtype), None, None
        out = grad.new_empty(len(rows), keys.shape[1])
        for part in _parts(rows, keys.shape[1]):
            picked = keys[rows[part]].to(grad.dtype)
            out[part] = torch.bmm(grad[part].unsqueeze(1), picked).squeeze(1)
        return out, None, None


@full_precision
def nce(scores: Tensor, temperature: float, normaliser: Tensor, samples: int, eps: float = EPS) -> Tensor:
    """Noise-contrastive estimation of InstDisc, eq. 5-7 of https://arxiv.org/abs/1805.01978: data against noise.

    As ``NCECriterion.py`` of zhirongw/lemniscate.pytorch@f7cfe29 (and CMC, CRD): the terms of the K negatives are
    summed, not averaged, and the noise is uniform over the samples.

    Args:
        scores: ``[B, 1 + K]`` similarities, the positive first.
        temperature: > 0; 0.07.
        normaliser: Z, ``samples`` times the mean of ``exp(similarity / temperature)``, a constant.
        samples: Rows of the bank.
        eps: Of both denominators.

    Returns:
        Mean over the batch, in nats.
    """
    probability = torch.exp(scores / temperature) / normaliser                       # [B, 1 + K]
    noise = (scores.shape[1] - 1) / samples  # K draws, 1 / samples each
    data, other = probability[:, 0], probability[:, 1:]
    gain = torch.log(data / (data + noise + eps)) + torch.log(noise / (other + noise + eps)).sum(1)
    return -gain.mean()


@full_precision
def sampled_softmax(scores: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the positive among the sampled rows: the "softmax" of CMC's, PyContrast's and InstDisc's code.

    Args:
        scores: ``[B, 1 + K]`` similarities, the positive first.
        temperature: > 0.

    Returns:
        Mean over the batch, in nats.
    """
    return F.cross_entropy(scores / temperature, scores.new_zeros(len(scores), dtype=torch.int64))


@full_precision
def instance_softmax(
    queries: Tensor, keys: Tensor, index: Tensor, temperature: float, chunk: int | None = None
) -> Tensor:
    """Non-parametric softmax over all instances, eq. 2 of https://arxiv.org/abs/1805.01978.

    As ``LinearAverage.py`` of zhirongw/lemniscate.pytorch@f7cfe29 (``--nce-k 0``, recommended for CIFAR). A bank in a
    half type is promoted as a whole here.

    Args:
        queries: ``[B, D]`` unit rows.
        keys: ``[N, D]`` the bank, without gradient.
        index: ``[B]`` row of each query.
        temperature: > 0; 0.1 for CIFAR.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`.

    Returns:
        Mean over the batch, in nats.
    """
    keys = keys.detach()
    own = (queries * keys[index]).sum(1) / temperature                               # [B]
    return (log_sum_exp(queries, keys, temperature, chunk=chunk) - own).mean()
