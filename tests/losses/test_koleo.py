"""KoLeo: a square by hand, the formula as loops, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.koleo import koleo, nearest_rows


def test_the_corners_of_a_square_are_a_root_of_two_apart():
    x = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [0.0, -5.0]], dtype=torch.float64)
    assert koleo(x).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-7)


def test_it_equals_the_formula_as_loops():
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in x.tolist()]
    total = 0.0
    for i, row in enumerate(unit):
        others = [other for j, other in enumerate(unit) if j != i]
        nearest = min(sum((a - b + 1e-8) ** 2 for a, b in zip(row, other, strict=True)) for other in others)
        total -= math.log(math.sqrt(nearest) + 1e-8) / len(unit)
    assert koleo(x).item() == pytest.approx(total, rel=1e-9)


def test_a_row_is_not_its_own_neighbour():
    assert nearest_rows(torch.eye(3)[[0, 0, 1]]).tolist()[:2] == [1, 0]


def test_gradient_pushes_both_ends_apart():
    x = torch.tensor([[1.0, 0.1], [1.0, -0.1]], requires_grad=True)
    koleo(x).backward()
    assert x.grad[0, 1] < 0 < x.grad[1, 1]  # a step against the gradient widens the angle


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match="at least 2 rows, because each needs a neighbour; got 1"):
        koleo(torch.ones(1, 3))
