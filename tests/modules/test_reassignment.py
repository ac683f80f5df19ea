"""Labels from clusters: numbered without gaps, folded, compared with those before, and the authors' order."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.modules.reassignment import Reassignment, by_cluster, compact, fold, shuffled_groups


def test_empty_clusters_leave_no_gap() -> None:
    assert compact(torch.tensor([7, 2, 2, 9, 7])).tolist() == [1, 0, 0, 2, 1]


def test_more_clusters_than_labels_share_the_last() -> None:
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 3])
    assert fold(labels, 4).tolist() == labels.tolist()
    # The largest is first: 1, then 2; what is left shares the last of three labels.
    assert fold(labels, 3).tolist() == [2, 0, 0, 0, 1, 1, 2]


def test_labels_agreement_and_count_survive_saving() -> None:
    one, two = Reassignment(6, 4), Reassignment(6, 4)
    assert one.labels.tolist() == [0, 1, 2, 3, 0, 1]
    one.replace(torch.tensor([5, 5, 5, 8, 8, 8]))
    one.replace(torch.tensor([3, 3, 3, 1, 1, 1]))  # the same parts, other numbers
    assert one.labels.tolist() == [1, 1, 1, 0, 0, 0] and float(one.agreement) == pytest.approx(1.0)
    two.load_state_dict(one.state_dict())
    assert two.replaced == 2 and torch.equal(two.labels, one.labels) and torch.equal(two.agreement, one.agreement)
    two.replace(torch.tensor([0, 1, 0, 1, 0, 1]))
    # Six samples, two parts each of three: I = 2/3 log 4/3 + 1/3 log 2/3, H = log 2.
    information = (2 * torch.tensor(4 / 3).log() + torch.tensor(2 / 3).log()) / 3
    assert float(two.agreement) == pytest.approx(float(information / torch.tensor(2.0).log()), rel=1e-5)


def test_the_authors_positions_point_into_their_reordered_data() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    order = by_cluster(labels)
    assert order.tolist() == [1, 3, 2, 0, 4, 5]
    groups = shuffled_groups(labels)
    for cluster in range(3):  # positions of the cluster's images, read in the reordered list
        positions = (labels == cluster).nonzero().flatten()
        assert sorted(order[positions].tolist()) == (groups == cluster).nonzero().flatten().tolist()
