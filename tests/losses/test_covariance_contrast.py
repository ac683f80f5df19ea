"""TiCo's two terms, and the covariance that runs along."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ssl_zoo.losses.covariance_contrast import tico
from ssl_zoo.modules.covariance import RunningMoments


def test_of_orthogonal_rows_by_hand() -> None:
    # Two unit axes: Z^T Z / 2 = I / 2; from zero, C = 0.1 I / 2, so that each z^T C z is 0.05.
    z = torch.eye(2)
    moments = RunningMoments(2, 0.9)
    terms = tico(z, z, moments(z), rho=20.0)
    assert [term.item() for term in terms] == [pytest.approx(0.0), pytest.approx(1.0)]
    assert not moments.moments.any(), "written after the backward pass"
    moments.commit()
    torch.testing.assert_close(moments.moments, 0.05 * torch.eye(2))
    moments(z)
    moments.commit()
    torch.testing.assert_close(moments.moments, 0.095 * torch.eye(2))


def test_equals_the_paper_as_loops() -> None:
    torch.manual_seed(0)
    z, t = (normalize(torch.randn(3, 4, dtype=torch.float64), dim=1) for _ in range(2))
    moments = RunningMoments(4, 0.5).double()
    moments.moments.copy_(torch.randn(4, 4))
    c = 0.5 * moments.moments + 0.5 * sum(torch.outer(x, x) for x in z) / 3
    invariance, contrast = tico(z, t, moments(z), 8.0)
    assert invariance.item() == pytest.approx(1 - sum(float(a @ b) for a, b in zip(z, t, strict=True)) / 3, rel=1e-12)
    assert contrast.item() == pytest.approx(8 * sum(float(x @ c @ x) for x in z) / 3, rel=1e-12)
