"""Regression losses: a prediction follows a target. Whether the target gets a gradient is the method's choice."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def cosine_regression(p: Tensor, t: Tensor) -> Tensor:
    """Squared distance of unit vectors, ``2 - 2 cos(p, t)``: eq. 2 of BYOL, https://arxiv.org/abs/2006.07733.

    As ``regression_loss`` in byol/utils/helpers.py of deepmind-research@f5de0ed, which divides by
    ``sqrt(max(|x|^2, 1e-12))``. The paper's symmetric loss is the *sum* of both directions (0 to 8).

    Args:
        p, t: ``[B, D]`` predictions and targets, of any length; both get gradients, the paper's ``t`` is detached.

    Returns:
        Mean over the batch, 0 (same direction) to 4 (opposite).
    """
    distance = F.normalize(p, dim=1, eps=1e-6) - F.normalize(t, dim=1, eps=1e-6)  # [B, D]
    return distance.square().sum(1).mean()


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """``-cos(p, z)``: ``D`` in eq. 1 and Algorithm 1 of SimSiam, https://arxiv.org/abs/2011.10566.

    The paper's symmetric loss is the *mean* of both directions.

    Args:
        p, z: ``[B, D]`` predictions and projections, of any length; both get gradients, the method detaches ``z``.

    Returns:
        Mean over the batch, -1 (same direction) to 1 (opposite).
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


@full_precision
def summed_squares(z: Tensor, target: Tensor) -> Tensor:
    """Squared differences summed over rows and dimensions: ``MSECriterion`` without ``sizeAverage``.

    The loss of NAT, https://arxiv.org/abs/1704.05310 (eq. 3; main.lua of facebookresearch/noise-as-targets@e5c58ab).

    Args:
        z, target: ``[B, D]``; unit rows there, for which it lies between 0 and 4B.

    Returns:
        The sum, which grows with the batch: rates of its authors are for 256 rows.
    """
    return (z - target).square().sum()
