"""SIGReg by hand and as loops: characteristic functions of shadows against that of the normal distribution."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from ssl_zoo.losses.sigreg import agreement, epps_pulley, normal_knots, shadows


def statistic(x: torch.Tensor, slices: torch.Tensor, knots: int = 17) -> torch.Tensor:
    t, normal, weights = (values.to(x.dtype) for values in normal_knots(knots))
    return epps_pulley(shadows(x, slices, t), normal, weights, len(x))


def test_one_point_and_two_knots_by_hand():
    # At t = 0 both functions are 1. At t = 3 the point 1 gives e^3i, the normal distribution e^-4.5; the step is 3.
    normal = math.exp(-4.5)
    wanted = 3 * normal * ((math.cos(3) - normal) ** 2 + math.sin(3) ** 2)
    assert statistic(torch.ones(1, 1), torch.ones(1, 1), knots=2).item() == pytest.approx(wanted, rel=1e-5)


def test_it_is_the_paper_as_loops():
    generator = torch.Generator().manual_seed(0)
    x, slices = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 3), (3, 4)))
    found = statistic(x, slices)
    for s in range(4):
        direction = slices[:, s] / slices[:, s].norm()
        total = 0.0
        for k in range(17):
            t = 3 * k / 16
            empirical = sum(cmath.exp(1j * t * float(row @ direction)) for row in x) / 6
            step = 3 / 16 * (1 if k in (0, 16) else 2)
            total += step * math.exp(-t * t / 2) * abs(empirical - math.exp(-t * t / 2)) ** 2
        assert found[s].item() == pytest.approx(6 * total, rel=1e-6)  # the code's window is rounded to float32


def test_normal_data_pass_and_others_fail():
    quantiles = torch.special.ndtri(torch.linspace(0, 1, 202, dtype=torch.float64)[1:-1])[:, None]
    one = torch.ones(1, 1)
    assert statistic(quantiles, one) < 0.02
    for other in (quantiles + 0.5, quantiles * 2, quantiles * 0.5, quantiles.sign()):
        assert statistic(other, one) > 1


def test_the_length_of_a_slice_does_not_matter():
    x, slices = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(statistic(x, slices), statistic(x, 10 * slices))


def test_views_are_tested_one_by_one_or_together():
    x, slices = torch.randn(2, 5, 3), torch.randn(3, 7)
    t, normal, weights = normal_knots()
    each = epps_pulley(shadows(x, slices, t), normal, weights, 5)
    assert each.shape == (2, 7)
    torch.testing.assert_close(each[1], statistic(x[1], slices))


def test_agreement_with_all_views_and_with_the_first():
    z = torch.tensor([[[0.0]], [[2.0]], [[4.0]]])  # mean 2
    assert agreement(z).item() == pytest.approx((4 + 0 + 4) / 3)
    assert agreement(z, 2).item() == pytest.approx((1 + 1 + 9) / 3)


@pytest.mark.parametrize(("knots", "last"), [(1, 3.0), (17, 0.0)])
def test_an_empty_interval_is_refused(knots, last):
    with pytest.raises(ValueError, match=f"wants 2 knots or more on a positive interval, got {knots} on"):
        normal_knots(knots, last)
