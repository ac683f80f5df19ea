"""Spread features evenly: the Kozachenko-Leonenko estimate of their entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

EPS = 1e-8


@torch.no_grad()
@full_precision
def nearest_rows(unit: Tensor) -> Tensor:
    """For each row of ``[N, D]`` unit vectors the index of the other row that is most alike: ``[N]`` int64."""
    similarity = unit @ unit.T  # [N, N]
    return similarity.fill_diagonal_(-1).argmax(1)


@full_precision
def koleo(x: Tensor, eps: float = EPS) -> Tensor:
    """``-mean log |x_i - nearest(x_i)|`` of unit vectors: https://arxiv.org/abs/1806.03198 (eq. 3).

    As ``KoLeoLoss`` in dinov2/loss/koleo_loss.py of facebookresearch/dinov2@b8931f7: the nearest by inner product, a
    gradient to both ends of each distance, ``eps`` added to every coordinate of the difference and to the distance.

    Args:
        x: ``[N, D]`` features of any length; the crops of one image must not meet in it, since they shall be alike.
        eps: Keeps distances above 0.

    Returns:
        Mean over the rows, in nats; large where two rows coincide.

    Raises:
        ValueError: If there is no other row to be near to.
    """
    if len(x) < 2:
        raise ValueError(f"koleo: wants at least 2 rows, because each needs a neighbour; got {len(x)}")
    unit = F.normalize(x, dim=1, eps=eps)
    distance = F.pairwise_distance(unit, unit[nearest_rows(unit)], eps=eps)  # [N]
    return -(distance + eps).log().mean()
