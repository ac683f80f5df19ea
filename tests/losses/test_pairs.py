"""Losses of pairs and triplets against numbers by hand, the selectors as loops, torch, and scikit-like edge cases."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.pairs import chopra, distances, first_negatives, hadsell, mean_of, online_hadsell
from ssl_zoo.losses.triplets import (
    Triplets,
    all_triplets,
    between,
    hardest,
    nearest_semihard,
    random_hard,
    semihard,
    triplet_margin,
)

GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(9, 4, dtype=torch.float64, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 1])
D = (Z[:, None] - Z[None]).square().sum(2)


def test_pairs_by_hand() -> None:
    distance, similar = torch.tensor([0.5, 0.25, 3.0]), torch.tensor([True, False, False])
    assert hadsell(distance, similar, 1.0, 0.0).tolist() == pytest.approx([0.125, 0.28125, 0.0])
    assert online_hadsell(distance, similar, 1.0).tolist() == pytest.approx([0.25, 0.5625, 0.0])
    wanted = [0.5 * 0.25, 8 * math.exp(-2.77 / 4 * 0.25), 8 * math.exp(-2.77 / 4 * 3)]
    assert chopra(distance, similar, 4.0).tolist() == pytest.approx(wanted)


def test_samples_at_one_place_have_finite_gradients() -> None:
    z = torch.zeros(3, 2, dtype=torch.float64).requires_grad_()
    similar = torch.zeros(3, 3, dtype=torch.bool)
    for loss in (hadsell, online_hadsell, chopra):
        (gradient,) = torch.autograd.grad(loss(distances(z, z), similar, 1.0).sum(), z)
        assert gradient.isfinite().all()


def test_distances_are_those_of_loops_and_of_torch() -> None:
    torch.testing.assert_close(distances(Z, Z).square(), D)
    torch.testing.assert_close(distances(Z, Z, order=1.0), (Z[:, None] - Z[None]).abs().sum(2))
    torch.testing.assert_close(distances(Z, Z, shift=1e-6).diagonal(), F.pairwise_distance(Z, Z), rtol=1e-9, atol=0)


def test_close_rows_far_from_zero_keep_their_distance_in_float32() -> None:
    rows = torch.tensor([[1000.0, 0.0], [1000.0, 0.001]])
    assert distances(rows, rows)[0, 1].item() == pytest.approx(0.001)


def test_as_many_negatives_as_positives_the_lowest_first() -> None:
    similar, every = LABELS[:, None] == LABELS, torch.ones(9, 9, dtype=torch.bool).triu(1)
    negatives = sorted((float(D[i, j]), i, j) for i, j in combinations(range(9), 2) if LABELS[i] != LABELS[j])
    count = sum(bool(LABELS[i] == LABELS[j]) for i, j in combinations(range(9), 2))
    chosen = first_negatives(D, similar, every)
    assert sorted(map(tuple, chosen.nonzero().tolist())) == sorted((i, j) for _, i, j in negatives[:count])
    few = torch.zeros(9, dtype=torch.int64)
    few[8] = 1  # 28 similar pairs, 8 others: all of these
    assert int(first_negatives(D, few[:, None] == few, every).sum()) == 8


def test_a_mean_over_nothing_is_zero() -> None:
    assert mean_of(torch.tensor([math.inf]), torch.tensor([False])).item() == 0.0


def loops(margin: float) -> list[tuple[int, int, dict[int, float]]]:
    """Anchor, positive, and what each negative costs, earlier samples being anchors."""
    found = []
    for a, p in combinations(range(9), 2):
        if LABELS[a] == LABELS[p]:
            others = [n for n in range(9) if LABELS[n] != LABELS[a]]
            found.append((a, p, {n: float(D[a, p] - D[a, n]) + margin for n in others}))
    return found


def check(found: tuple[Tensor, Tensor], chosen: list[float]) -> None:
    loss, count = found
    assert int(count) == len(chosen)
    assert float(loss) == pytest.approx(sum(chosen) / max(len(chosen), 1), rel=1e-12)


@pytest.mark.parametrize("margin", [0.1, 1.0, 4.0])
def test_choices_of_triplets_are_those_of_loops(margin: float) -> None:
    found, pairs = Triplets.of(between(Z, Z, True), LABELS, margin), loops(margin)
    check(all_triplets(found), [max(cost, 0) for _, _, costs in pairs for cost in costs.values()])
    check(hardest(found), [max(costs.values()) for _, _, costs in pairs if max(costs.values()) > 0])
    rank = torch.rand(found.value.shape, generator=torch.Generator().manual_seed(1))
    hard, semi = [], []
    for row, (_, _, costs) in enumerate(pairs):
        for chosen, most in ((hard, math.inf), (semi, margin)):
            candidates = [n for n, cost in costs.items() if 0 < cost < most]
            if candidates:
                chosen.append(costs[max(candidates, key=lambda n: float(rank[row, n]))])  # noqa: B023
    check(random_hard(found, rank), hard)
    check(semihard(found, rank, margin), semi)


@pytest.mark.parametrize("margin", [0.1, 4.0])
def test_the_nearest_semihard_negative_is_that_of_loops(margin: float) -> None:
    chosen = []
    for a in range(9):
        others = [float(D[a, n]) for n in range(9) if LABELS[n] != LABELS[a]]
        for p in range(9):
            if p != a and LABELS[p] == LABELS[a]:
                farther = [d for d in others if d > D[a, p]]
                chosen.append(max(float(D[a, p]) - (min(farther) if farther else max(others)) + margin, 0))
    check(nearest_semihard(Triplets.of(between(Z, Z, True), LABELS, margin, ordered=True), margin), chosen)


def test_a_batch_without_pairs_or_negatives_costs_nothing_and_has_a_gradient() -> None:
    for labels in (torch.arange(9), torch.zeros(9, dtype=torch.int64)):
        z = Z.clone().requires_grad_()
        found = Triplets.of(between(z, z, True), labels, 1.0)
        rank = torch.zeros_like(found.value)
        for loss, count in (
            all_triplets(found), hardest(found), random_hard(found, rank), nearest_semihard(found, 1.0)
        ):  # fmt: skip
            (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
            assert loss.item() == 0 and count.item() == 0 and not gradient.any()


def test_triplets_that_are_not_squared_are_torchs() -> None:
    rows = Z[:3], Z[3:6], Z[6:]
    wanted = F.triplet_margin_loss(*rows, margin=0.7, reduction="none")
    torch.testing.assert_close(triplet_margin(*rows, 0.7, squared=False), wanted, rtol=1e-9, atol=1e-12)
