"""Redundancy reduction: statistics of the dimensions over the global batch, gathered by the method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


def _off_diagonal(matrix: Tensor) -> Tensor:
    """All ``D * (D - 1)`` entries of a square matrix that are not on its diagonal."""
    d = len(matrix)
    return matrix.flatten()[1:].view(d - 1, d + 1)[:, :-1].flatten()


def _centred(x: Tensor, loss: str) -> Tensor:
    if len(x) < 2:
        raise ValueError(f"{loss}: statistics over the batch need at least 2 rows, got {len(x)}")
    return x - x.mean(0)


def _standardised(x: Tensor, group: int | None, eps: float = 1e-5) -> Tensor:
    """Batch norm without affine: the biased variance, as in the authors' ``BatchNorm1d(affine=False)``."""
    if group is not None and len(x) % group:
        raise ValueError(f"barlow_twins: groups of {group} rows do not divide a batch of {len(x)}")
    parts = [_centred(part, "barlow_twins") for part in x.split(group or len(x))]
    return torch.cat([part / (part.square().mean(0) + eps).sqrt() for part in parts])


@full_precision
def cross_correlation(a: Tensor, b: Tensor, group: int | None = None) -> Tensor:
    """``[D, D]`` correlations over the batch, ``C`` of eq. 2; arguments as of :func:`barlow_twins`."""
    return _standardised(a, group).T @ _standardised(b, group) / len(a)


@full_precision
def barlow_twins(a: Tensor, b: Tensor, off_diagonal: float, group: int | None = None) -> Tensor:
    """Distance of the views' cross-correlation from the identity: eq. 1-2 of https://arxiv.org/abs/2103.03230.

    As main.py of facebookresearch/barlowtwins@8e8d284 on the whole batch. With several processes that code reduces the
    matrix outside autograd, so its gradient is ``1 / world size`` of this one's.

    Args:
        a, b: ``[N, D]`` projections of the two views, all rows of the global batch; ``N >= 2``.
        off_diagonal: Weight of the entries off the diagonal; 0.0051 in the code.
        group: Consecutive rows that are standardised together; None: all, as the code's synchronised batch norm.

    Returns:
        Sum over the ``D * D`` entries.

    Raises:
        ValueError: On a single row, or groups that do not divide the batch.
    """
    correlation = cross_correlation(a, b, group)  # [D, D]
    on = (correlation.diagonal() - 1).square().sum()
    return on + off_diagonal * _off_diagonal(correlation).square().sum()


@full_precision
def variance_hinge(x: Tensor, eps: float = 1e-4) -> Tensor:
    """Hinge that keeps each dimension's deviation at 1 or above: eq. 1-2 of VICReg, https://arxiv.org/abs/2105.04906.

    Args:
        x: ``[N, D]`` embeddings, all rows of the global batch; ``N >= 2``. The variance is unbiased.
        eps: Added to the variance under the root.

    Returns:
        Mean over the dimensions, 0 to 1.
    """
    variance = _centred(x, "variance_hinge").square().sum(0) / (len(x) - 1)  # [D]
    return F.relu(1 - (variance + eps).sqrt()).mean()


@full_precision
def covariance_penalty(x: Tensor) -> Tensor:
    """Squared covariances between different dimensions, over ``D``: eq. 3-4 of https://arxiv.org/abs/2105.04906.

    Args:
        x: ``[N, D]`` embeddings, all rows of the global batch; ``N >= 2``.

    Returns:
        Sum over the ``D * (D - 1)`` entries off the diagonal, divided by ``D``.
    """
    x = _centred(x, "covariance_penalty")
    covariance = x.T @ x / (len(x) - 1)  # [D, D]
    return _off_diagonal(covariance).square().sum() / len(covariance)


@full_precision
def vicreg(
    x: Tensor,
    y: Tensor,
    all_x: Tensor,
    all_y: Tensor,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """VICReg, eq. 6 of https://arxiv.org/abs/2105.04906, as main_vicreg.py of facebookresearch/vicreg@4e12602.

    The code's variance term is the mean over the two views (the paper's is the sum).

    Args:
        x, y: ``[B, D]`` embeddings of the local rows: the invariance term is a mean over samples, which DDP averages.
        all_x, all_y: ``[N, D]`` rows of all processes, with gradient (``x`` and ``y`` in a single process).
        invariance, variance, covariance: Weights of the three terms.
    """
    spread = (variance_hinge(all_x) + variance_hinge(all_y)) / 2
    decorrelation = covariance_penalty(all_x) + covariance_penalty(all_y)
    return invariance * F.mse_loss(x, y) + variance * spread + covariance * decorrelation
