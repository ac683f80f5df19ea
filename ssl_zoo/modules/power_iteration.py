"""Clusters of a graph of neighbours, whose number nobody gives: power iteration clustering."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

BLOCK = 2**24  # similarities held at a time, 64 MB in float32


@torch.no_grad()
@full_precision
def power_iteration_clusters(
    x: Tensor,
    neighbours: int = 5,
    sigma: float = 0.2,
    alpha: float = 0.001,
    iterations: int = 200,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Power iteration clustering, Lin and Cohen 2010, as class ``PIC`` of facebookresearch/deepcluster's clustering.py.

    Args:
        x: ``[N, D]`` rows.
        neighbours: Of each row, that it is linked to.
        sigma: Width of the links' weights ``exp(-d^2 / sigma^2)``.
        alpha: Weight of the neighbours against a constant, in (0, 1).
        iterations: Of the power method.
        device: Where neighbours are searched; None: where ``x`` lies. The rest runs on the CPU.

    Returns:
        ``[N]`` numbers of clusters from 0 without gaps; single rows have joined the cluster of their nearest neighbour
        that is not alone, if one of its neighbours is in such.

    Raises:
        ValueError: If there are not more rows than ``neighbours``.
    """
    if not 1 <= neighbours < len(x):
        most = len(x) - 1
        raise ValueError(f"power_iteration_clusters: {neighbours} neighbours of {len(x)} rows; wanted 1 to {most}")
    near, distance = _nearest(x, neighbours, device)
    return join_singles(basins(near, distance, sigma, alpha, iterations), near)


def basins(
    near: np.ndarray, distance: np.ndarray, sigma: float = 0.2, alpha: float = 0.001, iterations: int = 200
) -> np.ndarray:
    """Function ``run_pic``: which local maximum of the power iteration's vector each row climbs to.

    A step goes along the link with the largest product of weight and ascent.

    Args:
        near: ``[N, 1 + k]`` the row itself and its neighbours, nearest first.
        distance: ``[N, 1 + k]`` squared Euclidean distances to them.

    Returns:
        ``[N]`` int64, maxima numbered in the order of rows.
    """
    n, k = near.shape[0], near.shape[1] - 1
    weights = np.exp(-distance[:, 1:] / sigma**2).astype(distance.dtype).reshape(-1)
    links = sparse.csr_matrix((weights, near[:, 1:].reshape(-1), k * np.arange(n + 1)), shape=(n, n))
    graph = (links + links.T).tocsr()
    v = np.full(n, 1 / n, dtype=np.float32)
    for _ in range(iterations):
        v = alpha * (graph.T @ v) + (1 - alpha) / n
        v /= v.sum()
    return _climb(graph, v)


def _climb(graph: sparse.csr_matrix, v: np.ndarray) -> np.ndarray:
    n = len(v)
    row = np.repeat(np.arange(n), np.diff(graph.indptr))
    ascent = graph.data * (v[graph.indices] - v[row])
    steepest = np.lexsort((np.arange(len(row)), -ascent, row))[graph.indptr[:-1]]  # the first of equal ones
    up = np.where(ascent[steepest] > 0, graph.indices[steepest], np.arange(n))
    while not np.array_equal(up, up[up]):
        up = up[up]
    return np.unique(up, return_inverse=True)[1].astype(np.int64)


def join_singles(clusters: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Rows that are alone in their cluster join that of their nearest neighbour that is not (``PIC.cluster``)."""
    size = np.bincount(clusters)[clusters]
    joined = clusters.copy()
    for row in (size == 1).nonzero()[0]:
        others = near[row, 1:][size[near[row, 1:]] > 1]
        if len(others):
            joined[row] = clusters[others[0]]
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)


def _nearest(x: Tensor, k: int, device: torch.device | str | None) -> tuple[np.ndarray, np.ndarray]:
    """``[N, 1 + k]`` rows, each itself first and then its neighbours, nearest first; and squared distances."""
    x = x.detach().float().to(x.device if device is None else device)
    half = x.square().sum(1) / 2
    found = []
    for rows in torch.arange(len(x), device=x.device).split(max(BLOCK // len(x), 1)):
        score = torch.addmm(half, x[rows], x.T, alpha=-1).scatter(1, rows[:, None], -torch.inf)  # itself, then others
        columns = score.topk(k + 1, dim=1, largest=False).indices
        found.append((columns.cpu(), (x[columns] - x[rows, None]).square().sum(2).cpu()))
    return tuple(torch.cat(part).numpy() for part in zip(*found, strict=True))  # type: ignore[return-value]
