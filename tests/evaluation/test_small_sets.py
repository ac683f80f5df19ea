"""Sets of a few images: folds, leave-one-out, and how the penalty of a linear probe is chosen on them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import knn
from ssl_zoo.evaluation import folds, held_in_turn
from ssl_zoo.evaluation.linear import PENALTY, fit, linear_probe


def few(each: int, classes: int = 4, spread: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(each * classes) % classes
    return F.one_hot(labels, 6) * 3 + spread * torch.randn(len(labels), 6, generator=generator), labels


@pytest.mark.parametrize("sizes, count", [([3, 3, 3], 3), ([2, 2], 2), ([1, 2, 4], 4), ([12, 7, 1], 5)])
def test_every_class_is_dealt_over_the_folds_and_stays_in_each_training_part(sizes: list[int], count: int) -> None:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    fold = folds.deal(labels)
    assert set(fold[fold >= 0].tolist()) == set(range(count))
    for c, n in enumerate(sizes):
        own = fold[labels == c]
        if n == 1:
            assert own.tolist() == [-1]
        else:
            held = own.bincount(minlength=count)
            assert held.sum() == n and held.max() - held.min() <= 1 and held.max() < n
    assert torch.equal(fold, folds.deal(labels)) and len(folds.masks(labels)) == count


def test_classes_of_one_sample_make_no_fold() -> None:
    assert folds.masks(torch.arange(5)) == []


def test_the_penalty_of_a_small_set_is_chosen_in_folds() -> None:
    (x, labels), (test, wanted) = few(3), few(10, seed=1)
    found = linear_probe(x, labels, test, wanted, [1e-3, 1.0])
    assert found["l2_chosen"] == "in 3 folds of the training samples"
    scale = (x - x.mean(0)) / x.std(0, correction=0)
    hits = {1e-3: 0, 1.0: 0}
    for held in folds.masks(labels):
        for l2 in hits:
            head = fit(scale[~held], labels[~held], l2, torch.zeros(7, 4), 1000)
            hits[l2] += int(((scale[held] @ head[:-1] + head[-1]).argmax(1) == labels[held]).sum())
    assert found["held_out"] == {f"{l2:g}": pytest.approx(100 * hit / 12) for l2, hit in hits.items()}
    assert found["top1"] > 60


def test_the_penalty_of_one_sample_a_class_is_that_of_few_labels() -> None:
    (x, labels), (test, wanted) = few(1), few(10, seed=1)
    found = linear_probe(x, labels, test, wanted)
    assert found["l2_chosen"] == "by nothing: one sample a class" and found["held_out"] == {}
    assert found["l2"] == PENALTY / 4 and found["top1"] == linear_probe(x, labels, test, wanted, [PENALTY / 4])["top1"]


@pytest.mark.parametrize("each, how", [(4, "in 4 folds"), (5, "on 10% of the training samples")])
def test_a_part_that_holds_every_class_is_held_out_as_ever(each: int, how: str) -> None:
    (x, labels), (test, wanted) = few(each), few(10, seed=1)
    assert linear_probe(x, labels, test, wanted)["l2_chosen"].startswith(how)


def test_leave_one_out_is_the_vote_of_all_others_written_as_loops() -> None:
    x, labels = few(5, spread=2.5)
    unit, wanted = F.normalize(x, dim=1).tolist(), []
    for i, query in enumerate(unit):
        cosines = [sum(a * b for a, b in zip(query, row, strict=True)) for row in unit]
        near = sorted(((cosines[j], int(labels[j])) for j in range(len(x)) if j != i), reverse=True)[:4]
        votes = [sum(math.exp(s / 0.07) for s, label in near if label == c) for c in range(4)]
        wanted.append(votes.index(max(votes)))
    assert knn.leave_one_out(x, labels, 4, k=4).tolist() == wanted
    assert wanted != labels.tolist()


def test_nobody_is_its_own_neighbour_not_even_among_twins() -> None:
    x = torch.ones(6, 3)
    near, where = knn.nearest_others(x, 4)
    assert near.shape == where.shape == (6, 4)
    assert all(i not in row for i, row in enumerate(where.tolist())) and near.min() > 0.999
    assert knn.nearest_others(x, 50)[1].shape == (6, 5)


def test_images_are_judged_in_turn_by_those_of_their_class_that_are_left() -> None:
    x, labels = few(3, spread=0.1)
    labels = torch.cat([labels, torch.tensor([4])])  # a class of one image, which cannot be asked
    x = torch.cat([x, -torch.ones(1, 6)])
    found = held_in_turn.judge(x, labels, 5)
    assert found == held_in_turn.Measured(linear=100.0, knn=100.0, images=12, folds=3, k=2)
    noise = held_in_turn.judge(torch.randn(13, 6, generator=torch.Generator().manual_seed(0)), labels, 5)
    assert noise.linear < 60 and noise.knn < 60
