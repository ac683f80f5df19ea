"""Accuracy with a few labels a class: against scikit-learn, by seed, and where a class has too few samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.evaluation import few_labels
from ssl_zoo.evaluation.few_labels import few_label_top1
from ssl_zoo.features import Features


def features(n: int, seed: int, spread: float = 1.5, classes: int = 4) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = 3 + F.one_hot(labels, 8).float() * 3 + spread * torch.randn(n, 8, generator=generator)
    return Features(x, labels, torch.arange(n))


def test_the_mean_and_the_spread_are_those_of_scikit_learn_over_the_same_draws() -> None:
    train, test = features(120, 0), features(200, 1)
    x, y = (normalize((part.features - train.features.mean(0)).numpy()) for part in (train, test))
    for count in (1, 3):
        top1 = []
        for draw in range(10):
            rows = balanced_rows(train.labels, 4 * count, seed=draw).numpy()
            model = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(x[rows], train.labels.numpy()[rows])
            top1.append(100 * model.score(y, test.labels.numpy()))
        found = few_label_top1(train, test, 4, [count])[count]
        assert found == pytest.approx((np.mean(top1), np.std(top1, ddof=1)), abs=0.1)
        assert found.spread > 1


def test_the_same_numbers_every_time_whatever_else_is_asked_for() -> None:
    train, test = features(120, 0), features(80, 1)
    torch.manual_seed(5)
    first = few_label_top1(train, test, 4, [2, 5])
    torch.rand(3)
    assert few_label_top1(train, test, 4, [5]) == {5: first[5]}


def test_a_draw_has_so_many_of_each_class_and_more_labels_hold_the_fewer() -> None:
    labels = features(120, 0).labels
    few, more = balanced_rows(labels, 8, seed=3), balanced_rows(labels, 20, seed=3)
    assert labels[few].bincount().tolist() == [2] * 4 and labels[more].bincount().tolist() == [5] * 4
    assert set(few.tolist()) < set(more.tolist()) and few.tolist() != balanced_rows(labels, 8, seed=4).tolist()


def test_numbers_that_the_smallest_class_does_not_have_are_left_out() -> None:
    train, test = features(120, 0), features(80, 1)
    labels = train.labels.clone()
    labels[(labels == 2).nonzero()[3:]] = -1  # class 2 keeps three
    assert list(few_label_top1(train._replace(labels=labels), test, 4, [1, 3, 4])) == [1, 3]
    assert few_label_top1(train._replace(labels=labels.where(labels != 2, -1)), test, 4, [1]) == {}


def test_samples_without_a_label_are_not_judged_but_tell_the_mean() -> None:
    train, test = features(120, 0), features(80, 1)
    labels = torch.cat([test.labels, torch.full((40,), -1)])
    more = Features(torch.cat([test.features, torch.randn(40, 8)]), labels, torch.arange(120))
    assert few_label_top1(train, more, 4, [2]) == few_label_top1(train, test, 4, [2])


@pytest.mark.parametrize("wanted, classes, counts", [
    ("auto", 10, (1, 5, 10)), ("auto", 30, (1, 5, 10)), ("auto", 31, ()), ("auto", None, ()), (None, 10, ()),
    ([10, 2, 2], 1000, (2, 10)),
])  # fmt: skip
def test_which_numbers_of_labels(wanted, classes, counts) -> None:
    assert few_labels.counts_of(wanted, classes) == counts
