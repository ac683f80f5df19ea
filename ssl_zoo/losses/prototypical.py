"""Contrast with cluster centroids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


@full_precision
def proto_nce(
    q: Tensor, prototypes: Tensor, concentration: Tensor, positives: Tensor, negatives: Tensor, offset: int
) -> Tensor:
    """One granularity of ProtoNCE, eq. 11 of PCL, https://arxiv.org/abs/2005.04966.

    As ``forward`` in pcl/builder.py of salesforce/PCL@964da1f: the prototypes of the other samples of the batch are
    negatives too, even where two samples have the same one, and every column has its own temperature.

    Args:
        q: ``[B, D]`` unit queries.
        prototypes: ``[K, D]`` unit centroids, without gradient.
        concentration: ``[K]`` temperature of each prototype, > 0 (:func:`concentration_of`).
        positives: ``[N]`` prototypes of the samples of all processes; row ``i`` of ``q`` belongs to ``offset + i``.
        negatives: ``[r]`` further prototypes, the same for the whole batch.
        offset: Of the first local row: ``rank * B``.

    Returns:
        Mean over the batch, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the positives.
    """
    check_inside("proto_nce", offset, len(q), len(positives), "positives")
    columns = torch.cat([positives, negatives])  # [N + r]
    logits = q @ prototypes[columns].detach().T / concentration[columns]  # [B, N + r]
    return F.cross_entropy(logits, torch.arange(offset, offset + len(q), device=q.device))


@torch.no_grad()
def concentration_of(
    distance: Tensor, assignment: Tensor, clusters: int, temperature: float, smoothing: float = 10.0
) -> Tensor:
    """How tightly the samples lie around each prototype: eq. 12 of PCL, then limits and scale of the authors' code.

    ``mean distance / log(samples + smoothing)``; clusters of one sample or none get the largest value; all are limited
    to the 10th and 90th percentile and scaled to the mean ``temperature`` (``run_kmeans`` in main_pcl.py of
    salesforce/PCL@964da1f).

    Args:
        distance: ``[N]`` *squared* distances of the samples to their (not normalised) centroids.
        assignment: ``[N]`` cluster of each sample.
        clusters: K.
        temperature: Mean of the result, > 0.
        smoothing: Alpha of the paper, 10.

    Returns:
        ``[K]`` in the precision of ``distance``.
    """
    counts = torch.bincount(assignment, minlength=clusters)  # [K]
    total = torch.zeros(clusters, dtype=torch.float64, device=distance.device)
    total.index_add_(0, assignment, distance.double().sqrt())
    phi = total / counts.clamp_min(1) / torch.log(counts + smoothing)
    phi = torch.where(counts > 1, phi, 0.0)
    phi = torch.where(counts > 1, phi, phi.max())
    limits = torch.quantile(phi, torch.tensor([0.1, 0.9], dtype=phi.dtype, device=phi.device))
    phi = phi.clamp(limits[0], limits[1])
    mean = phi.mean()
    # All distances 0 (a collapsed network): every prototype is as loose as the others.
    return torch.where(mean > 0, temperature * phi / mean, temperature).to(distance.dtype)
