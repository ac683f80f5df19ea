"""Targets that use all prototypes equally, over the rows of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.distributed import gather, own_rows
from ssl_zoo.losses.clustering import sinkhorn
from ssl_zoo.modules.queue import Queue


@torch.no_grad()
def balanced(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp where ranks hold different numbers of rows, such as hidden patches: ``[N, K]`` -> ``[N, K]``.

    As ``sinkhorn_knopp_teacher`` of facebookresearch/dinov2@b8931f7 (ibot_patch_loss.py, dino_clstoken_loss.py); the
    arguments are those of :func:`ssl_zoo.losses.clustering.sinkhorn`. Every rank must call.
    """
    return sinkhorn(scores, epsilon, iterations, _log_mass)


def _log_mass(log_q: Tensor) -> Tensor:
    """What the rows of all ranks give each prototype, as logarithms: ``[N, K]`` -> ``[1, K]``."""
    return gather(log_q.logsumexp(0, keepdim=True)).logsumexp(0, keepdim=True)


@torch.no_grad()
def balanced_with_queue(
    scores: Tensor, z: Tensor, prototypes: nn.Module, queue: Queue | None, epsilon: float, iterations: int
) -> Tensor:
    """Assignments of a small batch, balanced together with past embeddings: ``train`` in main_swav.py of swav@06b1b7c.

    Args:
        scores: ``[B, K]`` products of the local embeddings with the prototypes.
        z: ``[B, D]`` these embeddings; they are pushed after the queue was read.
        prototypes: ``[N, D]`` to ``[N, K]``.
        queue: Counts once it is full; None: there is none, or not yet.
        epsilon, iterations: As of :func:`ssl_zoo.losses.clustering.sinkhorn`.

    Returns:
        ``[B, K]`` of the local rows, without gradient.
    """
    scores = gather(scores)                                                          # [W * B, K]
    rows = len(scores)
    if queue is not None:
        if queue.full:
            scores = torch.cat([prototypes(queue.keys), scores])                     # [Q + W * B, K]
        queue.push(gather(z))
    return own_rows(sinkhorn(scores, epsilon, iterations)[-rows:])
