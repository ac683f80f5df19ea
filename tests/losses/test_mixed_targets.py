"""N-pair contrast and regression with one target, and with several."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.mixed_targets import mixed_regression, n_pair


def unit_rows(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_orthogonal_keys():
    z = torch.eye(3)
    assert n_pair(z, z, torch.arange(3), 1.0).item() == pytest.approx(math.log(1 + 2 / math.e), abs=1e-6)


@pytest.mark.parametrize("chunk", [None, 2])
def test_mixed_targets_are_weighted_cross_entropies(chunk):
    q, keys = unit_rows(4, 0), unit_rows(7, 1)
    own, partner = torch.tensor([0, 1, 2, 3]), torch.tensor([2, 2, 0, 6])
    share = torch.tensor([0.9, 0.5, 0.7, 1.0], dtype=torch.float64)
    logits = q @ keys.T / 0.2
    each = [F.cross_entropy(logits, target, reduction="none") for target in (own, partner)]
    wanted = (share * each[0] + (1 - share) * each[1]).mean()
    positives, weights = torch.stack([own, partner], 1), torch.stack([share, 1 - share], 1)
    assert n_pair(q, keys, positives, 0.2, weights, chunk).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_regression_is_two_minus_twice_the_mixed_cosine():
    q, keys = torch.eye(2), torch.eye(2)
    positives, weights = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    assert mixed_regression(q, keys, positives, weights).item() == pytest.approx((0.5 + 0.0) / 2)
    assert mixed_regression(q, keys, torch.tensor([1, 1])).item() == pytest.approx(1.0)
