"""Contrast with labels."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.precision import full_precision


@full_precision
def sup_con(
    anchors: Tensor,
    keys: Tensor,
    own: Tensor,
    positives: Tensor,
    temperature: float,
    base_temperature: float = 0.07,
    chunk: int | None = None,
) -> Tensor:
    """SupCon, eq. 2 (L_out) of https://arxiv.org/abs/2004.11362: anchors against all keys, many positives.

    As ``SupConLoss`` in losses.py of HobbitLong/SupContrast@66a8fe5, whose factor ``temperature / base_temperature``
    makes the value 1.43 times the paper's at 0.1. The mean similarity to the positives is the similarity to their mean:
    no matrix of pairs is needed.

    Args:
        anchors: ``[A, D]`` unit rows.
        keys: ``[K, D]`` unit rows of all views and processes, with gradient. The same tensor as ``anchors`` where all
            keys are anchors: then half of the products are needed.
        own: ``[A]`` position of each anchor among the keys.
        positives: ``[K]`` int64 label of each key: equal labels are positives (unlabelled samples: a number of their
            own, equal in their views). Or ``[A, K]`` weights of the positives, symmetric or not.
        temperature: > 0; 0.1 in the paper.
        base_temperature: Only scales the loss.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`; None: chosen by the size.

    Returns:
        Mean over the anchors, those without a positive counted with 0, in nats.
    """
    others = log_sum_exp(anchors, keys, temperature, own[:, None], chunk)  # [A]
    total, count = _by_weight(keys, own, positives) if positives.dim() == 2 else _by_label(keys, own, positives)
    similarity = (anchors * total).sum(1) / count.clamp(min=1e-12)  # [A], mean over the positives
    loss = torch.where(count > 0, others - similarity / temperature, 0.0)
    return loss.mean() * (temperature / base_temperature)


@full_precision
def sup_con_inside(anchors: Tensor, keys: Tensor, own: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """SupCon with the sum over positives inside the logarithm: eq. 3 (L_in) of https://arxiv.org/abs/2004.11362.

    As ``simclr_loss_func`` of solo-learn (``solo/losses/simclr.py``), which adds up the positives where the paper
    averages them. Arguments as of :func:`sup_con`; the matrix of pairs ``[A, K]`` is held.

    Returns:
        Mean over the anchors, those without a positive counted with 0, in nats.
    """
    logits = (anchors @ keys.T / temperature).scatter(1, own[:, None], -torch.inf)  # [A, K]
    partner = (labels[own][:, None] == labels[None]).scatter(1, own[:, None], False)  # [A, K]
    known = partner.any(1)
    positives = torch.where(partner | ~known[:, None], logits, -torch.inf)  # of an anchor without a positive: all
    return (logits.logsumexp(1) - positives.logsumexp(1)).mean()


def _by_label(keys: Tensor, own: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``[A, D]`` sum and ``[A]`` number of each anchor's positives, without waiting for the device."""
    # Any number for each label, equal for equal labels, below K: where it begins among the sorted ones.
    group = torch.searchsorted(labels.sort().values, labels)  # [K]
    sums = torch.zeros_like(keys).index_add(0, group, keys)  # [K, D]
    counts = keys.new_zeros(len(keys)).index_add(0, group, keys.new_ones(len(keys)))
    return sums[group[own]] - keys[own], counts[group[own]] - 1


def _by_weight(keys: Tensor, own: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    weights = weights.to(keys.dtype).scatter(1, own[:, None], 0.0)
    return weights @ keys, weights.sum(1)
