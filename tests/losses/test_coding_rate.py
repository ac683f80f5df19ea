"""EMP-SSL's coding rate and agreement."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from ssl_zoo.losses.coding_rate import patch_agreement, total_coding_rate


def test_rate_of_orthogonal_and_of_equal_rows_by_hand() -> None:
    # N = 2, D = 4, eps = 0.5: the Gram matrix is multiplied by 4 and has the eigenvalues (1, 1), or (2, 0).
    assert total_coding_rate(torch.eye(4)[:2], 0.5).item() == pytest.approx(math.log(5), rel=1e-6)
    assert total_coding_rate(torch.eye(4)[[0, 0]], 0.5).item() == pytest.approx(math.log(9) / 2, rel=1e-6)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_the_smaller_gram_matrix_gives_the_papers_determinant(shape: tuple[int, int]) -> None:
    z = torch.randn(2, *shape, dtype=torch.float64)
    n, d = shape
    wanted = [torch.logdet(torch.eye(d, dtype=z.dtype) + d / (n * 0.2) * x.T @ x) / 2 for x in z]
    torch.testing.assert_close(total_coding_rate(z), torch.stack(wanted), rtol=1e-10, atol=1e-12)


def test_agreement_equals_the_paper_as_loops() -> None:
    z = normalize(torch.randn(3, 4, 5, dtype=torch.float64), dim=2)
    cosines = [float(z[v, i] @ normalize(z[:, i].mean(0), dim=0)) for v in range(3) for i in range(4)]
    assert patch_agreement(z).item() == pytest.approx(sum(cosines) / 12, rel=1e-12)
    assert patch_agreement(z[:1].expand(3, 4, 5)).item() == pytest.approx(1.0)
