"""Whitening: rows are made uncorrelated with unit variance before views are compared, so that none can collapse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def whiten(x: Tensor, shrinkage: float = 0.0) -> Tensor:
    """Rows times the inverse of the lower Cholesky factor of their covariance: eq. 5 of https://arxiv.org/abs/2007.06346.

    As ``Whitening2d`` in methods/whitening.py of htdt/self-supervised@d9662c8; the gradient flows through the factor.

    Args:
        x: ``[..., n, D]``; each set of ``n`` rows is whitened by itself. The covariance is unbiased.
        shrinkage: Share of the identity in the covariance, 0 to 1; 0 in the code, which needs ``n > D``.

    Returns:
        ``[..., n, D]`` centred rows whose covariance is the identity (with shrinkage: nearly).

    Raises:
        ValueError: If there are too few rows, or, on a CPU, a direction in which they do not vary. On other devices the
            host would have to wait for the answer: there the rows of such a set become NaN, and so does the loss, at
            which :class:`ssl_zoo.callbacks.nan_guard.NaNGuard` stops the run and names the step and its samples.
    """
    n, dim = x.shape[-2:]
    if n < 2 or (n <= dim and not shrinkage):
        raise ValueError(
            f"whiten: {n} rows cannot be whitened in {dim} dimensions; take more than {max(dim, 1)} rows together, "
            "fewer dimensions, or a shrinkage above 0"
        )
    x = x - x.mean(-2, keepdim=True)
    covariance = x.mT @ x / (n - 1)  # [..., D, D]
    eye = torch.eye(dim, dtype=x.dtype, device=x.device)
    factor, failed = torch.linalg.cholesky_ex((1 - shrinkage) * covariance + shrinkage * eye)
    if failed.device.type == "cpu":
        _refuse(failed)
    factor = torch.where(failed[..., None, None] > 0, math.nan, factor)  # what is there of it would pass for a factor
    return torch.linalg.solve_triangular(factor, x.mT, upper=False).mT


def _refuse(failed: Tensor) -> None:
    if bool(failed.any()):
        raise ValueError(
            "whiten: the covariance is not positive definite, some direction does not vary any more; "
            "lower the learning rate, take more rows together, or a shrinkage above 0 (1e-3)"
        )


@full_precision
def whitened_mse(
    views: Sequence[Tensor],
    permutations: Sequence[Tensor],
    sub_batch: int,
    shrinkage: float = 0.0,
    euclidean: bool = False,
    one_sided: bool = False,
) -> Tensor:
    """W-MSE, eq. 4 of https://arxiv.org/abs/2007.06346: distances between whitened views, no negatives needed.

    As ``WMSE.forward`` in methods/w_mse.py of htdt/self-supervised@d9662c8: in every round the rows are permuted and
    cut into sub-batches, the same for all views, and each view of each sub-batch is whitened by itself.

    Args:
        views: V x ``[N, D]`` projections, all rows of the global batch; ``V >= 2``.
        permutations: One ``[N]`` permutation for each round.
        sub_batch: Rows that are whitened together; divides ``N``, twice ``D`` in the paper.
        shrinkage: As in :func:`whiten`.
        euclidean: Mean squared difference of the whitened entries; otherwise ``2 - 2 cos`` of the whitened rows.
        one_sided: No gradient through the second view of a pair (``solo/losses/wmse.py`` of solo-learn).

    Returns:
        Mean over rounds, pairs of views and rows; about 2 for unrelated views.

    Raises:
        ValueError: On fewer than two views, no round, or sub-batches that do not divide the rows.
    """
    rows = len(views[0])
    if len(views) < 2 or not permutations:
        got = f"{len(views)} and {len(permutations)}"
        raise ValueError(f"whitened_mse: wants 2 views and 1 permutation at least, got {got}")
    if rows % sub_batch:
        fits = max(n for n in range(1, min(sub_batch, rows) + 1) if rows % n == 0)
        raise ValueError(f"whitened_mse: sub-batches of {sub_batch} rows do not divide {rows} rows; try {fits}")
    losses = []
    for order in permutations:
        z = [whiten(view[order].unflatten(0, (-1, sub_batch)), shrinkage) for view in views]  # V x [N / s, s, D]
        z = z if euclidean else [F.normalize(x, dim=-1) for x in z]
        pairs = [(a, b.detach() if one_sided else b) for a, b in combinations(z, 2)]
        losses += [(a - b).square() for a, b in pairs]  # rounds * pairs x [N / s, s, D]
    distances = torch.stack(losses)
    return distances.mean() if euclidean else distances.sum(-1).mean()
