"""Principal components with equal variance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.distributed import broadcast_object, is_main
from ssl_zoo.losses.precision import full_precision

ROWS = 2**16  # of the covariance summed at a time
NOISE = 1e-12  # share of the largest variance below which a component holds the rounding of float32 only


@torch.no_grad()
@full_precision
def pca_whiten(x: Tensor, components: int, device: torch.device | str | None = None) -> Tensor:
    """Features on their first components, each divided by its standard deviation, then every row at length 1.

    ``preprocess_features`` of clustering.py (facebookresearch/deepcluster@2d1927e): faiss's PCA matrix with
    ``eigen_power=-0.5``. Signs and the order of equal variances are arbitrary. The main process finds the components
    and tells the others, so that all of them have the same ones.

    Args:
        x: ``[N, F]`` features of all samples, equal on all processes.
        components: P, 256 in the authors' code; all F if there are no more. One without any variance gives zeros.
        device: Where the products run; None: where ``x`` lies.

    Returns:
        ``[N, min(P, F)]`` on ``device``, float32 or better.

    Raises:
        ValueError: If ``components`` is not positive.
    """
    if components < 1:
        raise ValueError(f"pca_whiten: components must be 1 or more, got {components}")
    place = x.device if device is None else torch.device(device)
    told = broadcast_object([part.cpu() for part in _components(x, components, place)] if is_main() else None)
    mean, matrix = (part.to(place, x.dtype) for part in told)
    found = torch.empty(len(x), matrix.shape[1], dtype=x.dtype, device=place)
    for out, part in zip(found.split(ROWS), x.split(ROWS), strict=True):
        out.copy_(F.normalize((part.to(place) - mean) @ matrix, dim=1))
    return found


def _components(x: Tensor, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``[F]`` mean and ``[F, P]`` matrix, in float64."""
    mean = torch.stack([part.to(device).double().sum(0) for part in x.split(ROWS)]).sum(0) / len(x)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=device)
    for part in x.split(ROWS):
        centred = part.to(device).double() - mean
        covariance += centred.T @ centred / len(x)
    variance, directions = torch.linalg.eigh(covariance)  # ascending
    variance, directions = variance.flip(0)[:count], directions.flip(1)[:, :count]
    scale = torch.where(variance > NOISE * variance[0], variance, torch.inf).rsqrt()
    return mean, directions * scale
