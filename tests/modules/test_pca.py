"""Whitening against its definition, a hand example, and what cannot be whitened."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.modules import pca
from ssl_zoo.modules.pca import pca_whiten
from tests.pool import GlooPool


def features(n: int = 200, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(n, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    return (mixed + 3.0).double()


def test_two_axes_of_unequal_length_become_equal() -> None:
    # Variances 8 and 0.5 around (5, -1): whitened, all four points are at distance sqrt(2), then at 1.
    x = torch.tensor([[9.0, -1.0], [1.0, -1.0], [5.0, 0.0], [5.0, -2.0]])
    out = pca_whiten(x, 2)
    torch.testing.assert_close(out.abs(), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    assert out[0, 0] == -out[1, 0] and out[2, 1] == -out[3, 1]


def test_products_are_those_of_the_leading_whitened_components() -> None:
    x = features()
    centred = x - x.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    white = centred @ directions[:3].T / values[:3]
    white = white / white.norm(dim=1, keepdim=True)
    out = pca_whiten(x, 3)
    assert out.shape == (200, 3)
    torch.testing.assert_close(out @ out.T, white @ white.T, rtol=1e-9, atol=1e-9)


def test_more_components_than_features_are_all_of_them_and_constant_ones_give_zeros() -> None:
    x = torch.cat([features(dim=3), torch.ones(200, 2).double()], dim=1)
    out = pca_whiten(x, 256)
    assert out.shape == (200, 5) and out.isfinite().all()
    assert out[:, 3:].abs().max() == 0


def test_rows_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features()
    whole = pca_whiten(x, 4)
    monkeypatch.setattr(pca, "ROWS", 33)
    parts = pca_whiten(x, 4)
    torch.testing.assert_close(parts @ parts.T, whole @ whole.T, rtol=1e-9, atol=1e-9)


def whitened() -> torch.Tensor:
    return pca_whiten(features().float(), 4)


def test_all_processes_have_the_same_bits(pool: GlooPool) -> None:
    one, two = pool.run(whitened)
    assert torch.equal(one, two)


def test_no_component_is_refused() -> None:
    with pytest.raises(ValueError, match="components must be 1 or more, got 0"):
        pca_whiten(features(), 0)
