"""K-means against a hand example and scikit-learn; the same on two processes as on one."""

import pytest
import torch
from sklearn.cluster import KMeans

from ssl_zoo.modules import kmeans as module
from ssl_zoo.modules.kmeans import Clusters, kmeans
from tests.pool import GlooPool


def blobs(n: int = 300, dim: int = 5, kinds: int = 6, noise: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(kinds, dim, generator=generator)
    return centres[torch.arange(n) % kinds] + noise * torch.randn(n, dim, generator=generator)


@pytest.mark.parametrize("init", ["random", "++"])
def test_two_pairs_on_a_line(init: str) -> None:
    x = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    found = kmeans(x, 2, redo=5, init=init)  # type: ignore[arg-type]
    assert found.centroids.flatten().sort().values.tolist() == [1.0, 11.0]
    assert found.assignment[0] == found.assignment[1] != found.assignment[2] == found.assignment[3]
    assert found.distance.tolist() == [1.0] * 4 and found.inertia == 4.0


@pytest.mark.parametrize("init", [pytest.param("random", marks=pytest.mark.slow), "++"])
def test_inertia_is_scikit_learns(init: str) -> None:
    x = blobs(noise=2.0)
    wanted = KMeans(6, n_init=20, max_iter=300, random_state=0).fit(x.numpy())
    found = kmeans(x.double(), 6, iterations=300, redo=40, init=init)  # type: ignore[arg-type]
    assert found.inertia == pytest.approx(wanted.inertia_, rel=1e-4)
    means = torch.stack([x[found.assignment == k].double().mean(0) for k in range(6)])
    torch.testing.assert_close(found.centroids, means, rtol=1e-9, atol=1e-9)


def test_a_step_is_lloyds() -> None:
    x = blobs().double()
    start = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(7))[:4]]
    near = torch.cdist(x, start).argmin(1)
    means = torch.stack([x[near == k].mean(0) for k in range(4)])
    found = kmeans(x, 4, iterations=1, seed=7)
    torch.testing.assert_close(found.centroids, means, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.assignment, torch.cdist(x, means).argmin(1))


def test_more_starts_are_never_worse_and_seeds_repeat() -> None:
    x = blobs(noise=3.0)
    few, many = kmeans(x, 6, redo=1), kmeans(x, 6, redo=10)
    assert many.inertia <= few.inertia
    again = kmeans(x, 6, redo=10)
    assert torch.equal(many.assignment, again.assignment) and torch.equal(many.centroids, again.centroids)
    assert kmeans(x, 6, iterations=1, seed=1).inertia != kmeans(x, 6, iterations=1, seed=2).inertia


def test_an_empty_cluster_moves_to_the_farthest_sample() -> None:
    # Three centroids on one point: two of them get nothing, and move to 9 and 8.
    x = torch.tensor([[0.0], [0.0], [0.0], [0.1], [8.0], [9.0]])
    for seed in range(20):
        found = kmeans(x, 3, seed=seed)
        assert found.assignment.unique().tolist() == [0, 1, 2]
        assert found.inertia == pytest.approx(0.0075 if found.assignment[4] != found.assignment[5] else 0.5, abs=1e-6)


def test_spherical_clusters_compare_directions() -> None:
    x = torch.tensor([[1.0, 0.0], [50.0, 1.0], [0.0, 2.0], [1.0, 90.0]])
    found = kmeans(x, 2, redo=5, spherical=True)
    assert found.assignment[0] == found.assignment[1] != found.assignment[2] == found.assignment[3]
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(2))


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs().double()
    whole = kmeans(x, 6, redo=2)
    monkeypatch.setattr(module, "BLOCK", 6 * 7)  # 7 rows at a time
    pieces = kmeans(x, 6, redo=2)
    assert torch.equal(pieces.assignment, whole.assignment)
    torch.testing.assert_close(pieces.centroids, whole.centroids, rtol=1e-12, atol=1e-12)


def clustered(n: int) -> Clusters:
    module.BLOCK = 6 * 16  # pieces of 16 rows, so that both processes have some
    try:
        return kmeans(blobs(n, noise=2.0), 6, redo=3)
    finally:
        module.BLOCK = 2**24


@pytest.mark.parametrize("n", [300, 17, 9])
def test_two_processes_find_the_same_bits(n: int, pool: GlooPool) -> None:
    one = clustered(n)
    for two in pool.run(clustered, n):
        assert torch.equal(two.centroids, one.centroids) and torch.equal(two.assignment, one.assignment)
        assert torch.equal(two.distance, one.distance) and two.inertia == one.inertia


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="kmeans: 5 clusters of 4 samples; wanted 1 to 4"):
        kmeans(torch.zeros(4, 2), 5)
    with pytest.raises(ValueError, match="iterations and redo must be 1 or more, got 0 and 1"):
        kmeans(torch.zeros(4, 2), 2, iterations=0)
