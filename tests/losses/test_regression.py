"""BYOL's and SimSiam's distances against numbers by hand and the papers as loops."""

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.losses.regression import cosine_regression, negative_cosine


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine_as_loops(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


@pytest.mark.parametrize(
    ("p", "t", "wanted"),
    [
        ([3.0, 0.0], [5.0, 0.0], 0.0),
        ([1.0, 0.0], [0.0, 2.0], 2.0),
        ([1.0, 0.0], [-4.0, 0.0], 4.0),
        ([0.0, 0.0], [1.0, 0.0], 1.0),
    ],
)
def test_cosine_regression_by_hand(p, t, wanted):
    # The last pair: the authors' epsilon leaves a zero prediction at the origin, at distance 1.
    assert cosine_regression(torch.tensor([p]), torch.tensor([t])).item() == pytest.approx(wanted, abs=1e-6)


def test_cosine_regression_equals_the_paper_written_as_loops():
    p, t = rows(6, 5, seed=1), rows(6, 5, seed=2)
    wanted = sum(2 - 2 * cosine_as_loops(a, b) for a, b in zip(p, t, strict=True)) / 6
    assert cosine_regression(p, t).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("p", "z", "wanted"), [([2.0, 0.0], [3.0, 0.0], -1.0), ([1.0, 1.0], [1.0, 0.0], -math.sqrt(0.5))]
)
def test_negative_cosine_by_hand(p, z, wanted):
    assert negative_cosine(torch.tensor([p]), torch.tensor([z])).item() == pytest.approx(wanted, abs=1e-6)


def test_negative_cosine_equals_the_paper_written_as_loops():
    p, z = rows(6, 5, seed=3), rows(6, 5, seed=4)
    wanted = -sum(cosine_as_loops(a, b) for a, b in zip(p, z, strict=True)) / 6
    assert negative_cosine(p, z).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("loss", [cosine_regression, negative_cosine])
def test_both_sides_get_the_same_gradient_because_stopping_it_is_the_methods_choice(loss):
    p, t = rows(4, 3, seed=5).requires_grad_(), rows(4, 3, seed=6).requires_grad_()
    forward = torch.autograd.grad(loss(p, t), [p, t])
    backward = torch.autograd.grad(loss(t, p), [p, t])  # a cosine is symmetric
    for a, b in zip(forward, backward, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", [cosine_regression, negative_cosine])
def test_a_zero_prediction_has_a_finite_gradient(loss):
    p = torch.zeros(2, 3, requires_grad=True)
    loss(p, torch.ones(2, 3)).backward()
    assert p.grad is not None and p.grad.isfinite().all()
