"""VICReg on several views and on their feature maps, whose places are matched with each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision
from ssl_zoo.losses.redundancy import covariance_penalty, variance_hinge


@torch.no_grad()
@full_precision
def nearest_places(distances: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The places of one map that lie nearest to another map, each with its nearest place there.

    As ``neirest_neighbores`` in main_vicregl.py of facebookresearch/VICRegL@d14c226 (Sec. 3.2 of the paper).

    Args:
        distances: ``[B, N, M]`` from the places of this map to those of the other.
        count: So many places of this map, those with the smallest distance; None, or N and more: all.

    Returns:
        ``own`` and ``other``, ``[B, count]`` places; ``own`` ascends, so that a column keeps its part of the view.
    """
    nearest, other = distances.min(2)  # [B, N]
    own = nearest.argsort(dim=1, stable=True)[:, :count].sort(1).values  # [B, count]
    return own, other.gather(1, own)


def at_places(maps: Tensor, places: Tensor) -> Tensor:
    """Rows of ``maps [B, N, D]`` at ``places [B, K]``: ``[B, K, D]``."""
    return maps.gather(1, places.unsqueeze(-1).expand(-1, -1, maps.shape[-1]))


def grid_centres(box: Tensor, grid: tuple[int, int], flipped: Tensor | None = None) -> Tensor:
    """Where the places of a map lie in the image from which the view was cut (``_location_to_NxN_grid``).

    Args:
        box: ``[B, 4]`` top, left, height and width of the view in the image, in pixels.
        grid: Rows and columns of the map.
        flipped: ``[B]`` bool, views that were mirrored after the cut; None: take no notice.

    Returns:
        ``[B, rows * columns, 2]`` float64, down and right, in pixels of the image, row by row.
    """
    top, left, height, width = box.double().unbind(1)  # [B]
    rows, columns = ((torch.arange(n, device=box.device, dtype=torch.float64) + 0.5) / n for n in grid)
    across = columns.expand(len(box), -1)  # [B, columns]
    if flipped is not None:
        across = torch.where(flipped[:, None], 1 - across, across)
    down = top[:, None] + height[:, None] * rows  # [B, rows]
    right = left[:, None] + width[:, None] * across  # [B, columns]
    down, right = torch.broadcast_tensors(down[:, :, None], right[:, None, :])
    return torch.stack([down, right], dim=-1).flatten(1, 2)


def _place_covariance(x: Tensor) -> Tensor:
    """:func:`covariance_penalty` of each place of ``[N, K, D]``, mean over the places."""
    x = (x - x.mean(0)).transpose(0, 1)  # [K, N, D]
    covariance = x.mT @ x / (x.shape[1] - 1)  # [K, D, D]
    off = covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    return off.square().sum((1, 2)).mean() / x.shape[2]


@full_precision
def matched_vicreg(
    x: Tensor, y: Tensor, all_x: Tensor, all_y: Tensor, invariance: float, variance: float, covariance: float
) -> Tensor:
    """VICReg of matched places: eq. 2 of https://arxiv.org/abs/2210.01571; ``_vicreg_loss`` of main_vicregl.py.

    Variance and covariance are those of each column of matches over the batch; unlike in VICReg, the covariance term is
    the mean of the two sides too.

    Args:
        x, y: ``[B, K, D]`` matched places of the local rows.
        all_x, all_y: ``[N, K, D]`` those of all processes, with gradient.
        invariance, variance, covariance: Weights of the three terms.
    """
    spread = (variance_hinge(all_x) + variance_hinge(all_y)) / 2
    decorrelation = (_place_covariance(all_x) + _place_covariance(all_y)) / 2
    return invariance * F.mse_loss(x, y) + variance * spread + covariance * decorrelation


@full_precision
def several_vicreg(
    views: Sequence[Tensor],
    everyone: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    invariance: float,
    variance: float,
    covariance: float,
) -> Tensor:
    """VICReg of any number of views, ``global_loss`` of main_vicregl.py: every term is a mean over pairs or views.

    Args:
        views: V x ``[B, D]`` embeddings of the local rows.
        everyone: V x ``[N, D]`` those of all processes, with gradient.
        pairs: Views that are compared.
        invariance, variance, covariance: Weights of the three terms.
    """
    distance = torch.stack([F.mse_loss(views[i], views[j]) for i, j in pairs]).mean()
    spread = torch.stack([variance_hinge(x) for x in everyone]).mean()
    decorrelation = torch.stack([covariance_penalty(x) for x in everyone]).mean()
    return invariance * distance + variance * spread + covariance * decorrelation
