"""Instances that are recognised in another view and spread out from one another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def instance_spread(
    anchors: Tensor, keys: Tensor, own: Tensor, partner: Tensor, temperature: float, negative_weight: float = 1.0
) -> Tensor:
    """InvaSpread, https://arxiv.org/abs/1904.03436: ``-log P(partner) - m sum_j log(1 - P(j))`` over all other rows j.

    As ``BatchCriterion`` in BatchAverage.py of mangye16/Unsupervised_Embedding_Learning@29de398, where no gradient
    reaches ``keys``. There ``log(1 - P)`` of the partner is formed and subtracted again, which is infinite in float32
    once P rounds to 1; here it is left out, and ``1 - P`` never falls below the precision. Memory grows with A * K.

    With ``m < 1`` P of a negative may exceed 1, where the code gives nan; here such a negative counts as one of P = 1,
    without a gradient.

    Args:
        anchors: ``[A, D]`` unit rows.
        keys: ``[K, D]`` unit rows of both views of all processes.
        own: ``[A]`` place of each anchor among the keys.
        partner: ``[A]`` place of its other view.
        temperature: > 0; 0.1 in the paper.
        negative_weight: m > 0, of the second term and of the negatives in the denominator of P.

    Returns:
        Mean over the anchors, in nats.

    Raises:
        ValueError: If ``negative_weight`` is not above 0: the loss would be 0 whatever the embeddings.
    """
    logits = anchors @ keys.T / temperature                                         # [A, K]
    positive = logits.gather(1, partner[:, None])                                   # [A, 1]
    negatives = logits.scatter(1, torch.stack([own, partner], 1), -torch.inf)       # [A, K]
    return spread_of_scores(positive, negatives, negative_weight)


@full_precision
def spread_of_scores(positive: Tensor, negatives: Tensor, negative_weight: float = 1.0) -> Tensor:
    """The loss of :func:`instance_spread` from scores, which are divided by a temperature already.

    Args:
        positive: ``[A, 1]`` of each anchor with its partner.
        negatives: ``[A, K]`` with all others; ``-inf`` for what is none.
        negative_weight: As there.
    """
    if negative_weight <= 0:
        raise ValueError(f"instance_spread: negative_weight={negative_weight}; wanted a number above 0")
    heavier = negatives.logsumexp(1, keepdim=True) + math.log(negative_weight)      # [A, 1]
    total = torch.logaddexp(positive, heavier)                                      # [A, 1]
    share = (negatives - total).clamp(max=-torch.finfo(positive.dtype).eps)         # [A, K], log P
    apart = torch.log(-torch.expm1(share)).sum(1)                                   # [A]
    return (total - positive).mean() - negative_weight * apart.mean()
