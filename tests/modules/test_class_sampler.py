"""Positives and negatives by class."""

import pytest
import torch

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.modules.class_sampler import ClassSampler

LABELS = torch.tensor([2, 0, 1, 1, 0, 2, 2, -1, 1, 0])


def draws(rows: int):
    return BatchRNG(0, 0, 0, torch.arange(rows)).sample("contrast")


@pytest.mark.parametrize("distinct", [True, False])
def test_negatives_are_of_other_classes_each_as_likely(distinct):
    sampler = ClassSampler(10, 5, distinct=distinct)
    sampler.learn(LABELS)
    index = torch.full((4000,), 3)  # class 1: rows 2, 3, 8
    rows = sampler(index, draws(4000))
    assert torch.equal(rows[:, 0], index)
    share = rows[:, 1:].flatten().bincount(minlength=10) / 20000
    others = [1 / 7 if row not in (2, 3, 8) else 0.0 for row in range(10)]
    assert share.tolist() == pytest.approx(others, abs=0.01)
    repeated = (rows[:, 1:].sort(1).values.diff(dim=1) == 0).any(1)
    assert bool(repeated.any()) is not distinct


def test_too_few_of_other_classes_are_drawn_with_replacement():
    sampler = ClassSampler(10, 8)
    sampler.learn(LABELS)
    rows = sampler(torch.tensor([0, 1]), draws(2))
    assert rows.shape == (2, 9) and not sampler.without_replacement
    assert (LABELS[rows[0, 1:]] != 2).all() and (LABELS[rows[1, 1:]] != 0).all()


def test_a_relaxed_positive_is_any_sample_of_the_class():
    sampler = ClassSampler(10, 2, positive="relax")
    sampler.learn(LABELS)
    rows = sampler(torch.full((900,), 5), draws(900))
    assert (rows[:, 0].bincount(minlength=10)[[0, 5, 6]] > 250).all()
    unlabelled = sampler(torch.full((9,), 7), draws(9))
    assert (unlabelled[:, 0] == 7).all()


def test_without_labels_all_rows_are_possible():
    rows = ClassSampler(10, 200, distinct=False)(torch.tensor([4]), draws(1))
    assert set(rows[0].tolist()) == set(range(10))


def test_wrong_labels_are_refused():
    sampler = ClassSampler(10, 2)
    with pytest.raises(ValueError, match="got 4 labels for 10 training samples"):
        sampler.learn(LABELS[:4])
    with pytest.raises(ValueError, match="all training samples have one class"):
        sampler.learn(torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ValueError, match="positive=exakt: did you mean 'exact'"):
        ClassSampler(10, 2, positive="exakt")  # type: ignore[arg-type]
