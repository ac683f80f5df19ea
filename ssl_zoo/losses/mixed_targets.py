"""Losses of queries whose targets are one key each, or a weighted mean of several."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.precision import full_precision


@full_precision
def n_pair(
    q: Tensor,
    keys: Tensor,
    positives: Tensor,
    temperature: float,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Multi-class N-pair loss (Sohn 2016) with a temperature: every query finds its key among all, in one direction.

    With ``weights`` it is that of i-Mix, https://arxiv.org/abs/2010.08887: the cross-entropies of several positives,
    averaged. The weighted mean of their similarities is the similarity to their weighted mean.

    Args:
        q: ``[B, D]`` unit queries.
        keys: ``[K, D]`` unit keys of all processes, with gradient or without.
        positives: ``[B]`` place of each query's key, or ``[B, P]`` of several.
        temperature: > 0.
        weights: ``[B, P]`` of the positives, each row summing to 1.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`; None: chosen by the size.

    Returns:
        Mean over the queries, in nats.
    """
    others = log_sum_exp(q, keys, temperature, chunk=chunk)                         # [B]
    return (others - (q * target(keys, positives, weights)).sum(1) / temperature).mean()


@full_precision
def mixed_regression(q: Tensor, keys: Tensor, positives: Tensor, weights: Tensor | None = None) -> Tensor:
    """``2 - 2 q.t`` with ``t`` the weighted mean of the positives: i-Mix for BYOL, the paper above.

    Args:
        q, keys, positives, weights: As in :func:`n_pair`.

    Returns:
        Mean over the queries, 0 to 4.
    """
    return (2 - 2 * (q * target(keys, positives, weights)).sum(1)).mean()


def target(keys: Tensor, positives: Tensor, weights: Tensor | None) -> Tensor:
    """``[B, D]`` key of each query, or weighted mean of its keys."""
    if weights is None:
        return keys[positives]
    return (weights[..., None].to(keys.dtype) * keys[positives]).sum(1)
