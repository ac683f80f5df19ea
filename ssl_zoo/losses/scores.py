"""Losses of scores, whatever gave them: how well the right answers of a query stand out among the others.

All take the same: ``right`` ``[A, P]``, the scores of the P right answers of each of A queries; ``own`` ``[A, L]``,
those of all of the query's own sample, the right ones among them; ``others`` ``[A, K]``, those of other samples, with
``-inf`` for what does not count. All give the mean over queries and right answers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision
from ssl_zoo.losses.spread import spread_of_scores


@full_precision
def info_nce(right: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Each right answer in a softmax over all, in nats: eq. 4 of CPC, https://arxiv.org/abs/1807.03748."""
    return (torch.cat([own, others], 1).logsumexp(1, keepdim=True) - right).mean()


@full_precision
def nce(right: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Each right answer in a softmax over itself and other samples, in nats: eq. 2 of https://arxiv.org/abs/1906.00910.

    What AMDIM and YADIM call NCE: the other places of the own sample are neither right nor wrong.
    """
    return (torch.logaddexp(right, others.logsumexp(1, keepdim=True)) - right).mean()


@full_precision
def margin(right: Tensor, own: Tensor, others: Tensor, margin: float = 0.5) -> Tensor:
    """What a right answer lacks of a score ``margin`` above another sample's: FaceNet, https://arxiv.org/abs/1503.03832.

    Its eq. 3, the mean over all triplets, with similarities for distances: of unit vectors ``|a - b|^2 = 2 - 2 a . b``,
    so that a margin here is half of one there.

    Raises:
        ValueError: If ``margin`` is not above 0: answers that are all the same would do.
    """
    if margin <= 0:
        raise ValueError(f"margin of scores: margin={margin}; wanted a number above 0")
    missing = F.relu(margin - right[:, :, None] + others[:, None, :])                # [A, P, K]; 0 for what is -inf
    return missing.sum() / (others.isfinite().sum() * right.shape[1])


@full_precision
def spread(right: Tensor, own: Tensor, others: Tensor, negative_weight: float = 1.0) -> Tensor:
    """InvaSpread, with one right answer: :func:`ssl_zoo.losses.spread.spread_of_scores`."""
    return spread_of_scores(right, others, negative_weight)
