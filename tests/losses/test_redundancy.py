"""Barlow Twins and VICReg against numbers by hand and the papers as loops."""

import math

import pytest
import torch
from torch import Tensor

from ssl_zoo.losses.redundancy import barlow_twins, covariance_penalty, cross_correlation, variance_hinge, vicreg


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def barlow_twins_as_loops(a: Tensor, b: Tensor, off_diagonal: float) -> float:
    """Eq. 1-2 of the paper, with the 1e-5 of the code's batch norm."""
    n, d = a.shape
    columns = [[x[:, i].tolist() for i in range(d)] for x in (a, b)]
    scaled = [
        [[(v - mean(c)) / math.sqrt(mean([(w - mean(c)) ** 2 for w in c]) + 1e-5) for v in c] for c in view]
        for view in columns
    ]
    total = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(scaled[0][i][k] * scaled[1][j][k] for k in range(n)) / n
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
    return total


def covariance_as_loops(x: Tensor, i: int, j: int) -> float:
    a, b = x[:, i].tolist(), x[:, j].tolist()
    return sum((v - mean(a)) * (w - mean(b)) for v, w in zip(a, b, strict=True)) / (len(a) - 1)


def vicreg_as_loops(x: Tensor, y: Tensor) -> float:
    """Eq. 1-6 of the paper with the code's constants: mean over dimensions, half of each view's variance term."""
    n, d = x.shape
    invariance = sum(float(x[k, i] - y[k, i]) ** 2 for k in range(n) for i in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (x, y):
        for i in range(d):
            variance += max(0.0, 1 - math.sqrt(covariance_as_loops(z, i, i) + 1e-4)) / d / 2
            covariance += sum(covariance_as_loops(z, i, j) ** 2 for j in range(d) if j != i) / d
    return 25 * invariance + 25 * variance + covariance


def test_barlow_twins_of_two_equal_columns():
    # All four correlations are 1 (up to the 1e-5 beside a variance of 1): 2 * 0 on, 2 * 0.5 off the diagonal.
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert barlow_twins(z, z, 0.5).item() == pytest.approx(1.0, abs=1e-4)


def test_barlow_twins_of_opposite_views():
    # Uncorrelated columns, each correlated at -1 with itself in the other view: (1 + 1)^2 for each of the two.
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    assert barlow_twins(z, -z, 0.5).item() == pytest.approx(8.0, abs=1e-3)


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (5, 3), (9, 4)])
def test_barlow_twins_equals_the_paper_written_as_loops(count, dim):
    a, b = rows(count, dim, seed=1), rows(count, dim, seed=2)
    assert barlow_twins(a, b, 0.0051).item() == pytest.approx(barlow_twins_as_loops(a, b, 0.0051), rel=1e-11)


def test_vicreg_terms_by_hand():
    # Columns (1, -1): unbiased variance 2, covariance 2, so two squared entries of 4 over D = 2.
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert covariance_penalty(z).item() == pytest.approx(4.0, abs=1e-6)
    assert variance_hinge(z).item() == 0.0  # deviation sqrt(2), above 1
    assert variance_hinge(torch.ones(3, 2)).item() == pytest.approx(0.99, abs=1e-6)  # 1 - sqrt(1e-4)


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (5, 3), (8, 4)])
def test_vicreg_equals_the_paper_written_as_loops(count, dim):
    x, y = 0.8 * rows(count, dim, seed=3), rows(count, dim, seed=4)
    assert vicreg(x, y, x, y).item() == pytest.approx(vicreg_as_loops(x, y), rel=1e-11)


def test_vicreg_of_local_rows_averages_to_the_whole_batch():
    x, y = rows(6, 3, seed=5), rows(6, 3, seed=6)
    parts = [vicreg(x[i : i + 3], y[i : i + 3], x, y).item() for i in (0, 3)]
    assert sum(parts) / 2 == pytest.approx(vicreg(x, y, x, y).item(), rel=1e-12)


def test_vicreg_weights_its_terms():
    x, y = rows(5, 3, seed=7), rows(5, 3, seed=8)
    spread = (variance_hinge(x) + variance_hinge(y)).item() / 2
    assert vicreg(x, y, x, y, invariance=0, variance=3, covariance=0).item() == pytest.approx(3 * spread, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (lambda x: barlow_twins(x, x, 0.1), "barlow_twins"),
        (variance_hinge, "variance_hinge"),
        (covariance_penalty, "covariance_penalty"),
    ],
)
def test_a_single_row_is_an_error(loss, name):
    with pytest.raises(ValueError, match=f"{name}: statistics over the batch need at least 2 rows, got 1"):
        loss(torch.ones(1, 3))


def test_groups_are_standardised_apart():
    a, b = rows(6, 3, seed=7), rows(6, 3, seed=8)
    parts = [cross_correlation(x, y) for x, y in zip(a.split(3), b.split(3), strict=True)]
    torch.testing.assert_close(cross_correlation(a, b, group=3), torch.stack(parts).mean(0), rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="barlow_twins: groups of 4 rows do not divide a batch of 6"):
        barlow_twins(a, b, 0.1, group=4)


def test_collapsed_embeddings_have_finite_gradients():
    x = torch.ones(4, 3, requires_grad=True)
    (vicreg(x, x.detach(), x, x) + barlow_twins(x, x, 0.005)).backward()
    assert x.grad is not None and x.grad.isfinite().all()
