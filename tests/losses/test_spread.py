"""InvaSpread's loss against a number by hand and the code's sums as loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.losses.spread import instance_spread


def test_two_orthogonal_pairs():
    # Each row: its partner at cosine 1, two negatives at 0. P(partner) = e / (e + 2), P(negative) = 1 / (e + 2).
    z, row = torch.eye(2, dtype=torch.float64).repeat(2, 1), torch.arange(4)
    loss = instance_spread(z, z, row, row.roll(2), temperature=1.0)
    wanted = -math.log(math.e / (math.e + 2)) - 2 * math.log(1 - 1 / (math.e + 2))
    assert loss.item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (1.0, 0.3), (2.5, 0.3)])
def test_it_is_the_loops_of_the_paper(weight, temperature):
    z = F.normalize(torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    total = 0.0
    for i in range(8):
        partner = (i + 4) % 8
        scores = {j: math.exp(float(z[i] @ z[j]) / temperature) for j in range(8) if j != i}
        denominator = weight * (sum(scores.values()) - scores[partner]) + scores[partner]
        total -= math.log(scores[partner] / denominator)
        total -= weight * sum(math.log(1 - scores[j] / denominator) for j in scores if j != partner)
    row = torch.arange(8)
    assert instance_spread(z, z, row, row.roll(4), temperature, weight).item() == pytest.approx(total / 8, rel=1e-12)


def test_it_is_finite_where_a_negative_takes_all_the_probability():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]).requires_grad_()
    row = torch.arange(4)
    loss = instance_spread(z, z, row, row.roll(2), temperature=0.01)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def test_a_small_weight_is_finite_where_a_negative_is_more_probable_than_possible():
    # Each row has its partner and a negative at cosine 0, another at 1, whose P is e^2 / ((e^2 + 1) / 2 + 1) = 1.42.
    z = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1]].requires_grad_()
    row = torch.arange(4)
    loss = instance_spread(z, z.detach(), row, row.roll(2), temperature=0.5, negative_weight=0.5)
    loss.backward()
    total, most = (math.e**2 + 1) / 2 + 1, math.log(torch.finfo(torch.float64).eps)
    assert loss.item() == pytest.approx(math.log(total) - 0.5 * (math.log(1 - 1 / total) + most), rel=1e-9)
    assert z.grad.isfinite().all()


def test_a_weight_of_zero_is_refused_for_nothing_would_be_learnt():
    z, row = torch.eye(4), torch.arange(4)
    with pytest.raises(ValueError, match="negative_weight=0; wanted a number above 0"):
        instance_spread(z, z, row, row.roll(2), 0.1, 0)
