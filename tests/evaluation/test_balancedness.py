"""Accuracy within classes, and how equal it is."""

import math

import pytest
import torch

from ssl_zoo.balancedness import balancedness, by_class, report
from ssl_zoo.evaluation import knn, linear
from ssl_zoo.features import Features

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2])
GUESSES = torch.tensor([0, 0, 0, 1, 1, 0, 0])


def test_accuracy_within_each_class():
    assert by_class(GUESSES, LABELS, 3).tolist() == [0.75, 0.5, 0.0]
    assert math.isnan(by_class(GUESSES, LABELS, 4)[3])


def test_equal_classes_are_balanced_and_two_opposite_ones_are_not():
    assert balancedness(torch.full((5,), 0.3)) == 1.0
    # Two pairs of a class with itself, two of one with the other: (1 + 1 + 2 / e) / 4.
    assert balancedness(torch.tensor([1.0, 0.0])) == pytest.approx((1 + 1 / math.e) / 2)
    assert balancedness(torch.tensor([1.0, 0.0]), scale=0.5) == pytest.approx((1 + math.exp(-2)) / 2)


def test_a_class_without_samples_is_left_out():
    found = report(GUESSES, LABELS, 4)
    assert found["top1_by_class"] == [75.0, 50.0, 0.0, None]
    assert found["balancedness"] == balancedness(torch.tensor([0.75, 0.5, 0.0]))


def features(n: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.eye(3)[labels] + 0.7 * torch.randn(n, 3, generator=generator)
    return Features(x, labels, torch.arange(n))


@pytest.mark.parametrize("protocol", [knn.evaluate, linear.evaluate])
def test_protocols_report_it_when_asked(protocol):
    train, test = features(90, 0), features(60, 1)
    plain, asked = protocol(train, test, 3), protocol(train, test, 3, by_class=True)
    assert "balancedness" not in plain and plain.items() <= asked.items()
    assert sum(asked["top1_by_class"]) / 3 == pytest.approx(asked["top1"])  # classes of equal size
    assert asked["balancedness"] == pytest.approx(balancedness(torch.tensor(asked["top1_by_class"]) / 100))
