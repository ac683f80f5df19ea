"""Contrast of graphs with each other, and of their nodes with them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision

LOG2 = math.log(2.0)


@full_precision
def local_global(
    nodes: Tensor, graphs: Tensor, graph: Tensor, beta: float | None = None, positive_share: float = 0.5
) -> Tensor:
    """Jensen-Shannon bound of InfoGraph, https://arxiv.org/abs/1908.01000, and HCL's with hard negatives.

    As ``local_global_loss_`` in graph/losses.py of joshr17/HCL@7b4647f (measures JSD, and JSD_hard for a ``beta``). It
    multiplies the scores by 0 where they are of the other kind, and a score of 0 is counted: pairs of the same graph
    are among the negatives with a score of 0 in HCL's weights and sums, and pairs of two graphs among the positives.

    Args:
        nodes: ``[N, D]`` of all graphs together.
        graphs: ``[G, D]``, two or more.
        graph: ``[N]`` int64, the graph of each node.
        beta: Concentration on hard negatives; 0: the negatives are only made up for their share of positives; None:
            InfoGraph's bound.
        positive_share: Chance that a negative is a positive (tau+), in [0, 1); with ``beta`` only.

    Returns:
        Mean over nodes of the negatives' expectation less the positives'.

    Raises:
        ValueError: If there is only one graph: no node has a negative.
    """
    if len(graphs) < 2:
        raise ValueError(f"local_global: {len(graphs)} graph(s) in the batch have no negatives; wanted two or more")
    scores = nodes @ graphs.T                                                       # [N, G]
    same = F.one_hot(graph, len(graphs)).to(scores.dtype)                           # [N, G]
    positive, negative = scores * same, scores * (1 - same)
    pulled = LOG2 - F.softplus(-positive)                                           # [N, G]
    pushed = F.softplus(negative) - LOG2                                            # [N, G]
    if beta is not None:
        pulled = pulled - positive_share / (1 - positive_share) * F.softplus(positive)
        pushed = _hard(negative, beta, positive_share)
    return pushed.sum() / (len(nodes) * (len(graphs) - 1)) - pulled.sum() / len(nodes)


def _hard(negative: Tensor, beta: float, positive_share: float) -> Tensor:
    """``[N, G]`` terms of negatives weighted by ``exp(-2 beta score / largest)``, each row's weights of mean 1."""
    if beta == 0:
        return (F.softplus(negative) - LOG2) / (1 - positive_share)
    largest = torch.maximum(negative.max(), negative.min().abs())
    weights = torch.softmax(-2 * beta * negative / largest, dim=1) * negative.shape[1]
    return weights * F.softplus(negative) / (1 - positive_share) - LOG2


@full_precision
def one_way(a: Tensor, keys: Tensor, offset: int, temperature: float, chunk: int | None = None) -> Tensor:
    """GraphCL's loss: each row of one view against all rows of the other, without the positive in the denominator.

    ``loss_cal`` of unsupervised_TU/gsimclr.py in Shen-Lab/GraphCL@b4d7501. Eq. 3 of https://arxiv.org/abs/2010.13902
    has the same sum over the other graphs.

    Args:
        a: ``[B, D]`` unit rows of this process, of the first view.
        keys: ``[N, D]`` unit rows of all processes, of the second view, with gradient; ``keys[offset + i]`` is the
            positive of ``a[i]``.
        offset: Index of the first local row among the keys: ``rank * B``.
        temperature: > 0; 0.2 for the TU sets, 0.1 for molecules and proteins to transfer from, 0.5 with few labels.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`.

    Returns:
        Mean over the ``B`` rows, in nats; may be negative.

    Raises:
        ValueError: If the local rows do not lie inside the keys, or there is no other row to contrast with.
    """
    check_inside("one_way", offset, len(a), len(keys), "keys")
    if len(keys) < 2:
        raise ValueError(f"one_way: a batch of {len(keys)} graph(s) has no negatives; wanted two or more")
    own = torch.arange(offset, offset + len(a), device=a.device)[:, None]           # [B, 1]
    others = log_sum_exp(a, keys, temperature, own, chunk)                          # [B]
    return (others - (a * keys[offset : offset + len(a)]).sum(1) / temperature).mean()
