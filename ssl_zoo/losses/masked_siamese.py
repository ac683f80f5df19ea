"""Matching a target's assignment to prototypes: MSN's terms, all in logarithms.

Named as in the paper: anchors are the masked and the small views, targets the unmasked one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.clustering import sinkhorn
from ssl_zoo.losses.precision import full_precision


@full_precision
def log_assignments(z: Tensor, prototypes: Tensor, temperature: float, label_smoothing: float = 0.0) -> Tensor:
    """Soft assignments by cosine, eq. 1 of MSN, https://arxiv.org/abs/2204.07141; ``snn`` of the authors' losses.py.

    Args:
        z: ``[N, D]`` embeddings of any length.
        prototypes: ``[K, D]`` of any length.
        temperature: > 0; 0.1 in the authors' configuration.
        label_smoothing: Share of every assignment that is spread evenly over the prototypes; 0 to below 1.

    Returns:
        ``[N, K]`` log-probabilities.
    """
    log_p = F.log_softmax(F.normalize(z, dim=1) @ F.normalize(prototypes, dim=1).T / temperature, dim=1)
    if not label_smoothing:
        return log_p
    return ((1 - label_smoothing) * log_p.exp() + label_smoothing / log_p.shape[1]).log()


@torch.no_grad()
@full_precision
def sharpened(log_p: Tensor, temperature: float, iterations: int) -> Tensor:
    """Targets: probabilities to the power ``1 / temperature``, *then* balanced over the prototypes.

    As losses.py of facebookresearch/msn@4388dc1: Sinkhorn-Knopp runs on the sharpened probabilities, not on scores.

    Args:
        log_p: ``[N, K]`` of :func:`log_assignments`, all rows of the global batch.
        temperature: > 0; 0.25 in the authors' configuration.
        iterations: Of Sinkhorn-Knopp; 0 leaves the columns unequal.

    Returns:
        ``[N, K]`` rows that sum to 1, without gradient.
    """
    log_t = F.log_softmax(log_p / temperature, dim=1)
    return sinkhorn(log_t, 1.0, iterations) if iterations else log_t.exp()


@full_precision
def assignment_cross_entropy(log_p: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the anchors: first term of eq. 2.

    Args:
        log_p: ``[V * B, K]``, view by view.
        targets: ``[B, K]``, the same for every view.
    """
    return -(targets * log_p.unflatten(0, (-1, len(targets)))).sum(-1).mean()


@full_precision
def missing_entropy(mean: Tensor) -> Tensor:
    """``ln K`` minus the entropy of the mean assignment ``[K]``: second term of eq. 2 (me-max), at least 0."""
    return math.log(len(mean)) + torch.xlogy(mean, mean).sum()


@full_precision
def mean_entropy(log_p: Tensor) -> Tensor:
    """Mean over rows ``[N, K]`` of the entropy of each, in nats."""
    return -(log_p.exp() * log_p).sum(1).mean()
