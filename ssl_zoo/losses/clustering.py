"""Clusters as labels: balanced assignments to prototypes, and the prediction of assignments from views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(
    scores: Tensor, epsilon: float, iterations: int, log_mass: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Soft assignments that use all prototypes equally: eq. 3-5 of SwAV, https://arxiv.org/abs/2006.09882.

    Equals ``distributed_sinkhorn`` in main_swav.py of facebookresearch/swav@06b1b7c, in logarithms: no overflow at a
    small ``epsilon``. Its constant factors (1/K, 1/B, B) cancel in the last normalisation over a row.

    Args:
        scores: ``[N, K]`` similarities to the prototypes, all rows of the global batch (and of a queue, if any).
        epsilon: > 0; strength of the entropy, 0.05 in the paper.
        iterations: >= 1; 3 in the paper.
        log_mass: Where other rows are elsewhere (on other ranks, perhaps in other numbers): the logarithm ``[1, K]`` of
            what all rows give each prototype, called with ``[N, K]`` logarithms of what the rows here give.

    Returns:
        ``[N, K]`` assignments without gradient. Rows sum to 1; columns to about N / K.

    Raises:
        ValueError: Without an iteration, which would leave the rows unnormalised.
    """
    if iterations < 1:
        raise ValueError(f"sinkhorn: iterations must be 1 or more, got {iterations}")
    log_q = scores / epsilon  # [N, K]
    for _ in range(iterations):
        # Every prototype gets the same mass.
        log_q = log_q.log_softmax(0) if log_mass is None else log_q - log_mass(log_q)
        log_q = log_q.log_softmax(1)  # every sample gives mass 1
    return log_q.exp()


@full_precision
def swapped_prediction(scores: Sequence[Tensor], assignments: Sequence[Tensor], temperature: float) -> Tensor:
    """Each view predicts the assignments of the others: eq. 1, 2 and 6 of https://arxiv.org/abs/2006.09882.

    As ``train`` in main_swav.py of facebookresearch/swav@06b1b7c: mean over the assigned views of the mean over the
    other views.

    Args:
        scores: One ``[B, K]`` tensor of similarities to the prototypes per view; the assigned (global) views first.
        assignments: ``[B, K]`` assignments of the first views; no gradient reaches them.
        temperature: > 0; 0.1 in the paper.

    Returns:
        Mean over the batch, in nats; ln K where the prototypes are not told apart.

    Raises:
        ValueError: If there is no other view to predict from, or an assignment without a view.
    """
    if len(scores) < 2 or not 1 <= len(assignments) <= len(scores):
        raise ValueError(
            f"swapped_prediction: wants at least 2 views and assignments for 1 to all of them, "
            f"got {len(scores)} views and {len(assignments)} assignments"
        )
    log_p = [F.log_softmax(s / temperature, dim=1) for s in scores]  # V x [B, K]
    total = log_p[0].new_zeros(())
    for i, q in enumerate(assignments):
        others = [-(q.detach() * p).sum(1).mean() for v, p in enumerate(log_p) if v != i]
        total = total + torch.stack(others).mean()
    return total / len(assignments)


@full_precision
def cluster_prediction(scores: Sequence[Tensor], targets: Tensor, labelled: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of all views with the clusters of their samples, the mean over several clusterings.

    The loss of DeepCluster, eq. 2 of https://arxiv.org/abs/1807.05520, and of DeepCluster-v2: ``train`` in
    main_deepclusterv2.py of facebookresearch/swav@06b1b7c.

    Args:
        scores: H x ``[V * B, K]`` one for each clustering, V views one after the other; K may differ.
        targets: ``[H, B]`` clusters of the samples; a negative one has no loss.
        labelled: ``[H]`` samples with a cluster, > 0: those of ``targets``, or their mean over processes, by which the
            gradients of all processes average to those of the whole batch.
        temperature: > 0; 0.1 in DeepCluster-v2.

    Returns:
        Mean over labelled samples and views, in nats; ln K where the clusters are not told apart.
    """
    total = scores[0].new_zeros(())
    for s, target, count in zip(scores, targets, labelled, strict=True):
        views = len(s) // len(target)
        known = target.clamp_min(-1).repeat(views)  # [V * B]
        losses = F.cross_entropy(s / temperature, known, ignore_index=-1, reduction="sum")
        total = total + losses / (count * views)
    return total / len(scores)
