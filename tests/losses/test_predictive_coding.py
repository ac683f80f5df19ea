"""CPC on grids and on sequences."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.predictive_coding import (
    binary_match,
    future_info_nce,
    match_probability,
    negative_rows,
    rows_below,
)


def test_rows_below_of_equal_vectors_is_the_log_of_their_number() -> None:
    x = torch.ones(2, 3, 4, 5)
    assert rows_below(x, x, 2, 0).item() == pytest.approx(math.log(2 * 4 * 5), rel=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_below_equals_the_paper_as_loops(rows: int) -> None:
    torch.manual_seed(0)
    p, t = torch.randn(1, 3, 4, 2, dtype=torch.float64), torch.randn(2, 3, 4, 2, dtype=torch.float64)
    total = []
    for r in range(4 - rows):
        for c in range(2):
            query = 0.5 * p[0, :, r, c]
            everything = sum(
                math.exp(query @ t[n, :, i, j]) for n in range(2) for i in range(4) for j in range(2)
            )
            total.append(math.log(everything) - float(query @ t[1, :, r + rows, c]))
    assert rows_below(p, t, rows, 1, 0.5).item() == pytest.approx(sum(total) / len(total), rel=1e-12)


@pytest.mark.parametrize("rows", [0, 4])
def test_a_distance_outside_of_the_grid_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=rf"rows_below: rows={rows} in a grid of 4 rows; wanted 1 to 3"):
        rows_below(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), rows, 0)


def test_a_frame_of_the_same_time_is_never_a_negative() -> None:
    image = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    shift = torch.tensor([[[1, 1, 4], [4, 4, 1]]])
    assert negative_rows(image, shift, 5).tolist() == [[[1, 7, 6], [9, 0, 3]]]
    shifts = torch.arange(1, 5).view(1, 4, 1).expand(1, 4, 5)
    times = negative_rows(torch.zeros_like(shifts), shifts, 5)
    assert not (times == torch.arange(5)).any() and times.max() == 4


def test_future_info_nce_by_hand() -> None:
    # Dimension 2: a product of 2 is a mean of 1. One step; the positive scores 1, the one negative 0.
    encoded = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    losses, hits = future_info_nce([torch.ones(1, 1, 2)], encoded, torch.zeros(1, 1, 1, 2))
    assert losses.tolist() == [pytest.approx(math.log(1 + 1 / math.e))] and hits.tolist() == [1.0]


def test_binary_match_by_hand() -> None:
    p = match_probability(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
    assert p.tolist() == [[0.5]]
    assert binary_match(p, torch.ones(1, 1)).item() == pytest.approx(math.log(2))
    sure = torch.tensor([[1.0]], dtype=torch.float64)
    assert binary_match(sure, torch.zeros(1, 1)).item() == pytest.approx(-math.log(1e-7), rel=1e-6)
