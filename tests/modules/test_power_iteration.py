"""Power iteration clustering: its loops as the paper's code has them, separate groups, single rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_zoo.modules import power_iteration
from ssl_zoo.modules.power_iteration import basins, join_singles, power_iteration_clusters


def blobs(kinds: int = 3, each: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 10.0 * torch.eye(kinds)
    return centres.repeat_interleave(each, 0) + 0.1 * torch.randn(kinds * each, kinds, generator=generator)


def test_no_cluster_holds_rows_of_two_groups_far_apart() -> None:
    found = torch.from_numpy(power_iteration_clusters(blobs(), neighbours=5))
    assert found.min() == 0 and len(found.unique()) == int(found.max()) + 1 < 30
    groups = [set(part.tolist()) for part in found.split(20)]
    assert not groups[0] & groups[1] and not groups[1] & groups[2] and not groups[0] & groups[2]
    assert found.bincount().min() > 1  # single rows have joined


def test_basins_equal_the_climb_written_as_loops() -> None:
    x = blobs(2, 15).double()
    order = torch.cdist(x, x).argsort(1)[:, :5]
    near, distance = order.numpy(), torch.cdist(x, x).square().gather(1, order).numpy()
    weights = np.zeros((30, 30))
    for i in range(30):
        for j, d in zip(near[i, 1:], distance[i, 1:], strict=True):
            weights[i, j] += np.exp(-d / 0.3**2)
            weights[j, i] += np.exp(-d / 0.3**2)
    v = np.full(30, 1 / 30)
    for _ in range(50):
        v = 0.1 * weights @ v + 0.9 / 30
        v /= v.sum()
    top = []
    for i in range(30):
        here = i
        while True:
            gains = [weights[here, j] * (v[j] - v[here]) for j in range(30)]
            if max(gains) <= 0:
                break
            here = int(np.argmax(gains))
        top.append(here)
    wanted = [sorted(set(top)).index(i) for i in top]
    assert basins(near, distance, sigma=0.3, alpha=0.1, iterations=50).tolist() == wanted


def test_a_single_row_joins_its_nearest_neighbour_that_is_not_alone() -> None:
    clusters = np.array([0, 0, 1, 2, 2, 3])
    near = np.array([[0, 1, 2], [1, 0, 2], [2, 5, 4], [3, 4, 0], [4, 3, 0], [5, 2, 2]])
    # Row 2's nearest is row 5, alone too; then row 4, of cluster 2. Row 5 has no neighbour in company: it stays alone.
    assert join_singles(clusters, near).tolist() == [0, 0, 1, 1, 1, 2]


def test_blocks_of_the_search_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = power_iteration_clusters(blobs())
    monkeypatch.setattr(power_iteration, "BLOCK", 60 * 7)
    assert np.array_equal(power_iteration_clusters(blobs()), whole)


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="5 neighbours of 4 rows; wanted 1 to 3"):
        power_iteration_clusters(torch.zeros(4, 2))
