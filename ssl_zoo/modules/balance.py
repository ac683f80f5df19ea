"""Targets that use all prototypes equally, over the rows of all processes."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.distributed import gather
from ssl_zoo.losses.clustering import sinkhorn


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
