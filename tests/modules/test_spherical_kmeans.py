"""K-means by similarity against loops; the same on two processes as on one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssl_zoo.modules import kmeans as module
from ssl_zoo.modules.kmeans import spherical_kmeans
from tests.pool import GlooPool


def directions(n: int = 120, dim: int = 4) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0)).double(), dim=1)


def test_it_equals_the_authors_procedure_written_as_loops() -> None:
    x = directions()
    centroids = x[:5].clone()
    for _ in range(7):
        nearest = [max(range(5), key=lambda k: float(row @ centroids[k])) for row in x]  # noqa: B023
        for k in range(5):
            members = [row for row, near in zip(x, nearest, strict=True) if near == k]
            if members:
                centroids[k] = sum(members) / len(members)
        centroids = F.normalize(centroids, dim=1)
    found, assignment = spherical_kmeans(x, x[:5], iterations=7)
    torch.testing.assert_close(found, centroids, rtol=1e-10, atol=1e-10)
    assert torch.equal(assignment, (x @ centroids.T).argmax(1))


def test_a_centroid_without_rows_keeps_its_place() -> None:
    x = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]), dim=1)
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found, assignment = spherical_kmeans(x, start)
    torch.testing.assert_close(found, start)
    assert assignment.tolist() == [0, 0, 1]


def clustered() -> tuple[torch.Tensor, torch.Tensor]:
    x = directions()
    module.BLOCK = 5 * 16  # pieces of 16 rows, so that both processes have some
    try:
        return spherical_kmeans(x, x[10:15])
    finally:
        module.BLOCK = 2**24


def test_two_processes_find_the_same_bits(pool: GlooPool) -> None:
    one = clustered()
    for two in pool.run(clustered):
        assert torch.equal(two[0], one[0]) and torch.equal(two[1], one[1])
