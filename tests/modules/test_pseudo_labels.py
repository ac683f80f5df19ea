"""k-reciprocal distances and the self-paced criterion, written as the authors' loops, and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse
from sklearn.cluster import DBSCAN

from ssl_zoo.modules import rerank
from ssl_zoo.modules.pseudo_labels import SelfPaced, self_paced
from ssl_zoo.modules.rerank import jaccard_distance


def features(n: int = 60, kinds: int = 8, noise: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(kinds, 6, generator=generator), dim=1)
    return F.normalize(centres[torch.arange(n) % kinds] + noise * torch.randn(n, 6, generator=generator), dim=1)


def dense(distance: sparse.csr_matrix) -> np.ndarray:
    out = np.ones(distance.shape)
    coo = distance.tocoo()
    out[coo.row, coo.col] = coo.data
    return out


def by_loops(x: np.ndarray, k1: int, k2: int) -> np.ndarray:
    n = len(x)
    rank = np.argsort(-(x @ x.T) - 9 * np.eye(n), axis=1, kind="stable")[:, :k1]

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in rank[i, :k] if i in rank[j, :k]}

    weights = np.zeros((n, n))
    for i in range(n):
        members = reciprocal(i, k1 + 1)
        for c in list(reciprocal(i, k1 + 1)):
            half = reciprocal(c, round(k1 / 2) + 1)
            if len(half & reciprocal(i, k1 + 1)) > 2 / 3 * len(half):
                members |= half
        own = sorted(members)
        e = np.exp(2 * x[own] @ x[i] - 2)
        weights[i, own] = e / e.sum()
    weights = np.stack([weights[rank[i, :k2]].mean(0) for i in range(n)])
    least = np.minimum(weights[:, None], weights[None]).sum(2)
    return 1 - least / (2 - least)


@pytest.mark.parametrize(("k1", "k2"), [(8, 3), (15, 6), (5, 1)])
def test_jaccard_distances_equal_the_papers_loops(k1: int, k2: int) -> None:
    x = features()
    found = jaccard_distance(x, k1, k2)
    np.testing.assert_allclose(dense(found), by_loops(x.double().numpy(), k1, k2), atol=2e-6)
    assert k1 > 8 or found.nnz < 60 * 60  # what has nothing in common is not stored


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dense(jaccard_distance(features(), 8, 3))
    monkeypatch.setattr(rerank, "BLOCK", 60 * 7)
    np.testing.assert_array_equal(dense(jaccard_distance(features(), 8, 3)), whole)


def test_fewer_samples_than_neighbours_and_equal_samples() -> None:
    assert dense(jaccard_distance(features(5), 30, 6)).shape == (5, 5)
    same = dense(jaccard_distance(torch.ones(40, 3) / 3**0.5, 8, 3))
    assert np.isfinite(same).all() and np.allclose(np.diag(same), 0, atol=1e-6)
    with pytest.raises(ValueError, match="k1 and k2 must be 1 or more, got 0 and 6"):
        jaccard_distance(features(), 0)


def blocks(*sizes_and_distances: tuple[int, float]) -> np.ndarray:
    """Groups of samples at a distance of each other, 1 from all others."""
    n = sum(size for size, _ in sizes_and_distances)
    out, start = np.ones((n, n)), 0
    for size, distance in sizes_and_distances:
        out[start : start + size, start : start + size] = distance
        start += size
    np.fill_diagonal(out, 0)
    return out


def stored(distance: np.ndarray) -> sparse.csr_matrix:
    rows, columns = np.nonzero(distance < 1)
    return sparse.csr_matrix((distance[rows, columns].astype(np.float32), (rows, columns)), shape=distance.shape)


def test_clusters_that_every_radius_sees_stay_and_noise_stays_alone() -> None:
    found = self_paced(stored(blocks((5, 0.1), (4, 0.2), (2, 0.1))), 0.6, 0.02)
    assert found.clusters.tolist() == [0] * 5 + [1] * 4 + [-1] * 2
    assert found.labels.tolist() == [0] * 5 + [1] * 4 + [2, 3]
    assert found.threshold == 0 and not found.compactness.any()


def test_a_cluster_that_the_loose_radius_merges_is_given_up() -> None:
    distance = blocks((5, 0.1), (5, 0.1), (5, 0.1), (5, 0.1))
    distance[:5, 5:10] = distance[5:10, :5] = 0.61  # the first two become one at 0.62
    found = self_paced(stored(distance), 0.6, 0.02, threshold=0.1)
    assert found.independence.tolist() == [0.5] * 10 + [0.0] * 10
    assert found.labels[10:].tolist() == [2] * 5 + [3] * 5 and len(set(found.labels[:10].tolist())) == 10
    assert found.labels[:10].min() == 4  # new numbers behind those of the clusters
    fixed = self_paced(stored(distance), 0.6, 0.02)  # the 90th percentile of 0, 0, 0.5, 0.5
    assert fixed.threshold == 0.5 and fixed.labels.tolist() == fixed.clusters.tolist()


def test_only_the_samples_that_stay_together_at_the_tight_radius_are_kept() -> None:
    distance = blocks((8, 0.1))
    distance[7, :7] = distance[:7, 7] = 0.59  # in the cluster at 0.6, alone at 0.58
    found = self_paced(stored(distance), 0.6, 0.02)
    assert found.tight.tolist() == [0] * 7 + [-1]
    np.testing.assert_allclose(found.compactness, [1 / 8] * 7 + [7 / 8], rtol=1e-6)
    assert found.labels.tolist() == [0] * 7 + [1]


def test_dbscan_sees_the_same_clusters_as_on_all_distances() -> None:
    distance = jaccard_distance(features(), 8, 3)
    found = self_paced(distance, 0.5, 0.05)
    for radius, ours in ((0.5, found.clusters), (0.45, found.tight), (0.55, found.loose)):
        wanted = DBSCAN(eps=radius, min_samples=4, metric="precomputed").fit_predict(dense(distance).astype(np.float32))
        assert ours.tolist() == wanted.tolist()
    assert found.clusters.max() > 1


def test_without_any_cluster_everyone_is_alone_and_no_threshold_is_fixed() -> None:
    found = self_paced(stored(blocks((1, 0.0), (2, 0.1))), 0.6, 0.02)
    assert found.threshold is None and found.labels.tolist() == [0, 1, 2]


def test_the_threshold_is_handed_from_epoch_to_epoch() -> None:
    rows = F.normalize(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    label, distance = SelfPaced(0.6, 0.05, 3, 8, 3), jaccard_distance(rows, 8, 3)
    first = self_paced(distance, 0.6, 0.05, 3)
    labels, threshold = label(rows, -1.0)
    assert labels.tolist() == first.labels.tolist() and threshold == first.threshold and 0 < threshold < 1
    assert label(rows, 0.0)[0].tolist() == self_paced(distance, 0.6, 0.05, 3, 0.0).labels.tolist() != labels.tolist()
    assert SelfPaced(0.6, 0.05, 41, 8, 3)(rows, -1.0)[1] == -1.0  # no cluster of 41 among 40, and no threshold


def test_radii_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"eps=0.99 -\+ eps_gap=0.02 are radii .*; wanted numbers in"):
        self_paced(stored(blocks((4, 0.1))), 0.99, 0.02)
