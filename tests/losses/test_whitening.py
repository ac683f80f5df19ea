"""Whitening by Cholesky factors, and the distances of whitened views."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from ssl_zoo.losses import whitening
from ssl_zoo.losses.whitening import whiten, whitened_mse

GENERATOR = torch.Generator().manual_seed(0)


def rows(n: int, dim: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=GENERATOR, dtype=torch.float64) @ torch.rand(dim, dim, dtype=torch.float64)


def test_four_corners_are_already_white_up_to_their_variance() -> None:
    # Variance 4/3 in both directions and no covariance: each entry becomes 1 / sqrt(4/3).
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    torch.testing.assert_close(whiten(x + 7), x * math.sqrt(0.75))


def test_whitened_rows_have_the_identity_as_covariance() -> None:
    z = whiten(rows(3 * 40, 5).view(3, 40, 5))
    for part in z:
        torch.testing.assert_close(torch.cov(part.T), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-10)
        assert part.mean(0).abs().max() < 1e-12


def test_whiten_is_the_inverse_of_the_lower_factor() -> None:
    x, shrinkage = rows(9, 4), 0.3
    covariance = (1 - shrinkage) * torch.cov(x.T) + shrinkage * torch.eye(4, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.linalg.cholesky(covariance))
    wanted = torch.stack([inverse @ (row - x.mean(0)) for row in x])
    torch.testing.assert_close(whiten(x, shrinkage), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("euclidean", [False, True])
def test_the_loss_equals_the_paper_written_as_loops(euclidean: bool) -> None:
    views, size = [rows(12, 3) for _ in range(3)], 6
    orders = [torch.randperm(12, generator=GENERATOR) for _ in range(2)]
    total = []
    for order in orders:
        for part in order.view(-1, size):
            for a, b in combinations([whiten(view[part]) for view in views], 2):
                for p, q in zip(a, b, strict=True):
                    cosine = 2 - 2 * float(p @ q / p.norm() / q.norm())
                    total.append(float((p - q).square().mean()) if euclidean else cosine)
    assert whitened_mse(views, orders, size, 0.0, euclidean).item() == pytest.approx(sum(total) / len(total), rel=1e-10)


def test_what_cannot_be_whitened_is_refused() -> None:
    with pytest.raises(ValueError, match="4 rows cannot be whitened in 4 dimensions; take more than 4 rows"):
        whiten(rows(4, 4))
    assert whiten(rows(4, 4), shrinkage=0.1).isfinite().all()
    with pytest.raises(ValueError, match="some direction does not vary any more"):
        whiten(torch.cat([rows(9, 2), torch.ones(9, 1, dtype=torch.float64)], 1))
    with pytest.raises(ValueError, match="sub-batches of 5 rows do not divide 12 rows; try 4"):
        whitened_mse([rows(12, 2)] * 2, [torch.arange(12)], 5)
    with pytest.raises(ValueError, match="2 views and 1 permutation at least, got 1 and 1"):
        whitened_mse([rows(12, 2)], [torch.arange(12)], 6)


@pytest.mark.parametrize("euclidean", [False, True])
def test_where_nobody_asks_the_loss_of_what_cannot_be_whitened_is_no_number(
    euclidean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whitening, "_refuse", lambda failed: None)  # as on a GPU
    flat = torch.cat([rows(9, 2), torch.ones(9, 1, dtype=torch.float64)], 1)
    good, bad = whiten(torch.stack([rows(9, 3), flat]))
    assert good.isfinite().all() and bad.isnan().any()
    views = [torch.cat([rows(9, 3), x]) for x in (flat, rows(9, 3))]
    assert whitened_mse(views, [torch.arange(18)], 9, 0.0, euclidean).isnan()


def test_one_sided_pairs_have_the_same_value_and_no_gradient_through_their_second_view() -> None:
    views = [rows(12, 2).requires_grad_() for _ in range(2)]
    both = whitened_mse(views, [torch.arange(12)], 6)
    one = whitened_mse(views, [torch.arange(12)], 6, one_sided=True)
    assert one.item() == both.item()
    first, second = torch.autograd.grad(one, views, allow_unused=True)
    torch.testing.assert_close(first, torch.autograd.grad(both, views)[0])
    assert second is None
