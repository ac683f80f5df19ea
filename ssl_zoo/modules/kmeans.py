"""K-means on any device, split over the processes; the result does not depend on how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.distributed import all_reduce_sum_, gather, rank, world_size
from ssl_zoo.losses.precision import full_precision

BLOCK = 2**24  # similarities held at a time, 64 MB in float32; decides on the rows of a product, never the world size


class Clusters(NamedTuple):
    """What k-means found; the same on every process."""

    centroids: Tensor  # [K, D], unit rows if spherical
    assignment: Tensor  # [N] int64, of every sample to its nearest centroid
    distance: Tensor  # [N] squared Euclidean, to that centroid
    inertia: float  # sum of the squared distances


def check_clusters(clusters: int | Sequence[int], most: int, samples: str) -> None:
    """Raise the ValueError about numbers of clusters that are not 2 to ``most``, as many as there are ``samples``."""
    counts = [clusters] if isinstance(clusters, int) else list(clusters)
    if counts and 2 <= min(counts) and max(counts) <= most:
        return
    wanted, fits = f"2 to {most}, {samples}", max(most // 50, 2)
    if isinstance(clusters, int):
        raise ValueError(f"method.clusters={clusters}: wanted {wanted}; try method.clusters={fits}")
    several = [fits] * max(len(counts), 1)
    raise ValueError(f"method.clusters={counts}: wanted one or more, each {wanted}; try method.clusters={several}")


@torch.no_grad()
@full_precision
def kmeans(
    x: Tensor,
    clusters: int,
    iterations: int = 20,
    redo: int = 1,
    seed: int = 0,
    init: Literal["random", "++"] = "random",
    spherical: bool = False,
    device: torch.device | str | None = None,
) -> Clusters:
    """Lloyd's algorithm (1982, https://doi.org/10.1109/TIT.1982.1056489), the best of several starts.

    Each process searches its share of the rows. Sums of rows are taken in whole numbers (fixed point, 62 bits), which
    do not depend on the order of the summands: neither on the number of processes nor on a device's threads. A cluster
    that loses all its samples moves to the sample that lies farthest from its centroid.

    Args:
        x: ``[N, D]``, equal on all processes, on any device; half types are taken as float32.
        clusters: K, at most N.
        iterations: At most; fewer if no assignment changes any more. 20 in faiss's and PCL's code.
        redo: Starts, of which the one with the smallest inertia is kept (``nredo`` of faiss).
        seed: Of the starts.
        init: ``random``: K different samples (faiss). ``++``: samples drawn with the squared distance to the nearest of
            those drawn so far, https://dl.acm.org/doi/10.5555/1283383.1283494; takes K passes.
        spherical: Rows and centroids on the unit sphere, similarity instead of distance.
        device: Where the search runs; None: where ``x`` lies.

    Raises:
        ValueError: If there are fewer samples than clusters, or a number is not positive.
    """
    if not 1 <= clusters <= len(x):
        raise ValueError(f"kmeans: {clusters} clusters of {len(x)} samples; wanted 1 to {len(x)}")
    if iterations < 1 or redo < 1:
        raise ValueError(f"kmeans: iterations and redo must be 1 or more, got {iterations} and {redo}")
    x = F.normalize(x, dim=1) if spherical else x
    share = _Share(x, clusters, device)
    generator = torch.Generator().manual_seed(seed)
    best: Clusters | None = None
    for _ in range(redo):
        start = _plus_plus(x, clusters, generator) if init == "++" else _random(x, clusters, generator)
        found = _lloyd(share, start.to(share.device), iterations, spherical)
        best = found if best is None or found.inertia < best.inertia else best
    assert best is not None
    return best


@torch.no_grad()
@full_precision
def spherical_kmeans(
    x: Tensor, start: Tensor, iterations: int = 10, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """K-means by similarity from a given start: ``cluster_memory`` of main_deepclusterv2.py (facebookresearch/swav).

    A centroid is the mean of the rows most similar to it, at length 1; one that no row chooses keeps its place. Neither
    the rows nor the start are brought to length 1 here. Split over the processes as :func:`kmeans`.

    Args:
        x: ``[N, D]`` unit rows, equal on all processes.
        start: ``[K, D]`` first centroids: different rows of ``x``, as a rule.
        iterations: At most; fewer if no assignment changes any more. 10 in the authors' code.
        device: Where the search runs; None: where ``x`` lies.

    Returns:
        ``[K, D]`` unit centroids and ``[N]`` int64, the most similar one of every row.
    """
    share = _Share(x, len(start), device)
    centroids, assignment = start.to(share.device), None
    for _ in range(iterations):
        before, (assignment, _) = assignment, share.search(centroids, lengths=False)
        if before is not None and torch.equal(assignment, before):
            break
        means, counts = share.means(assignment, len(start))
        centroids = F.normalize(torch.where(counts[:, None] > 0, means, centroids), dim=1)
    return centroids, share.search(centroids, lengths=False)[0]


class _Share:
    """This process's rows, cut into pieces whose sizes are the same for any number of processes."""

    def __init__(self, x: Tensor, clusters: int, device: torch.device | str | None) -> None:
        self.device = x.device if device is None else torch.device(device)
        self.x = x
        self.samples = len(x)
        self.piece = max(BLOCK // clusters, 1)
        pieces = -(-len(x) // self.piece)
        self.length = -(-pieces // world_size()) * self.piece  # rows of a rank, the last ones' filled up
        self.first = min(rank() * self.length, len(x))
        self.rows = x[self.first : self.first + self.length].to(self.device)
        # 2^62 / (N * largest): no sum of N rows overflows, and a row keeps 40 bits and more of a million.
        low, high = torch.aminmax(x)  # without a copy of all rows
        largest = max(float(-low), float(high), 1e-30)
        self.scale = 2.0 ** (61 - math.ceil(math.log2(len(x))) - math.ceil(math.log2(largest)))

    def search(self, centroids: Tensor, lengths: bool = True) -> tuple[Tensor, Tensor]:
        """Nearest centroid and squared distance of every sample of all processes: both ``[N]``.

        Without ``lengths`` the centroid with the largest product, which is the nearest of those of one length.
        """
        assignment = torch.zeros(self.length, dtype=torch.int64, device=self.device)
        distance = torch.zeros(self.length, dtype=self.rows.dtype, device=self.device)
        half = centroids.square().sum(1) / 2 if lengths else centroids.new_zeros(len(centroids))  # [K]
        for start in range(0, len(self.rows), self.piece):
            part = self.rows[start : start + self.piece]
            near = torch.addmm(half, part, centroids.T, alpha=-1).argmin(1)
            assignment[start : start + len(part)] = near
            distance[start : start + len(part)] = (part - centroids[near]).square().sum(1)
        return gather(assignment)[: self.samples], gather(distance)[: self.samples]

    def means(self, assignment: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
        """``[K, D]`` means of the samples of each cluster, 0 without any; ``[K]`` their numbers."""
        own = assignment[self.first : self.first + len(self.rows)]
        sums = torch.zeros(clusters, self.rows.shape[1], dtype=torch.int64, device=self.device)
        for near, part in zip(own.split(self.piece), self.rows.split(self.piece), strict=True):
            sums.index_add_(0, near, (part.double() * self.scale).round().long())
        counts = torch.zeros(clusters, dtype=torch.int64, device=self.device).index_add_(0, own, torch.ones_like(own))
        sums, counts = all_reduce_sum_(sums), all_reduce_sum_(counts)
        means = sums.double() / self.scale / counts.clamp_min(1)[:, None]
        return means.to(self.rows.dtype), counts


def _lloyd(share: _Share, centroids: Tensor, iterations: int, spherical: bool) -> Clusters:
    clusters = len(centroids)
    assignment, distance = share.search(centroids)
    for _ in range(iterations):
        centroids, counts = share.means(assignment, clusters)
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            far = distance.argsort(descending=True, stable=True)[: len(empty)]
            centroids[empty] = share.x[far.to(share.x.device)].to(share.device)
        centroids = F.normalize(centroids, dim=1) if spherical else centroids
        before = assignment
        assignment, distance = share.search(centroids)
        if torch.equal(assignment, before):
            break
    return Clusters(centroids, assignment, distance, float(distance.double().sum()))


def _random(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:clusters].to(x.device)]


def _plus_plus(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    x = x.cpu()  # a running sum in another order would draw other samples
    chosen = [int(torch.randint(len(x), (), generator=generator))]
    nearest = (x - x[chosen[0]]).square().sum(1).double()  # [N]
    for _ in range(clusters - 1):
        total = nearest.cumsum(0)
        drawn = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        index = min(int(torch.searchsorted(total, drawn, right=True)), len(x) - 1)
        chosen.append(index)
        nearest = torch.minimum(nearest, (x - x[index]).square().sum(1).double())
    return x[chosen]
