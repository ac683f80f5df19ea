"""Places of feature maps: where they lie, which are matched, and VICReg of the matches."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.losses.local_features import at_places, grid_centres, matched_vicreg, nearest_places, several_vicreg
from ssl_zoo.losses.redundancy import vicreg

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = (25.0, 25.0, 1.0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_the_centres_of_a_cut() -> None:
    # A cut of 4 x 8 pixels from (10, 20): two rows of height 2, two columns of width 4.
    box = torch.tensor([[10, 20, 4, 8]])
    wanted = [[11.0, 22.0], [11.0, 26.0], [13.0, 22.0], [13.0, 26.0]]
    assert grid_centres(box, (2, 2))[0].tolist() == wanted
    assert grid_centres(box, (2, 2), torch.tensor([False]))[0].tolist() == wanted
    mirrored = grid_centres(box, (2, 2), torch.tensor([True]))[0].tolist()
    assert mirrored == [[11.0, 26.0], [11.0, 22.0], [13.0, 26.0], [13.0, 22.0]]
    assert grid_centres(box, (1, 4)).shape == (1, 4, 2)


def test_the_nearest_places_are_taken_in_the_order_of_the_map() -> None:
    distances = torch.tensor([[[5.0, 4.0], [1.0, 2.0], [9.0, 3.0]]])
    own, other = nearest_places(distances, 2)
    assert (own.tolist(), other.tolist()) == ([[1, 2]], [[0, 1]])   # place 2 is at 3, place 0 at 4
    own, other = nearest_places(distances)
    assert (own.tolist(), other.tolist()) == ([[0, 1, 2]], [[1, 0, 1]])
    assert nearest_places(distances, 99)[0].shape == (1, 3)
    assert at_places(random(1, 3, 4), own).shape == (1, 3, 4)


def test_matched_vicreg_equals_loops_over_the_places() -> None:
    x, y = random(6, 3, 4), random(6, 3, 4)
    terms = []
    for k in range(3):
        for part in (x[:, k], y[:, k]):
            hinge = sum(max(0.0, 1 - float(column.var() + 1e-4) ** 0.5) for column in part.T) / 4
            covariance = torch.cov(part.T)
            off = float(covariance.square().sum() - covariance.diagonal().square().sum()) / 4
            terms.append(25 * hinge + off)
    wanted = 25 * float((x - y).square().mean()) + sum(terms) / len(terms)
    assert matched_vicreg(x, y, x, y, *WEIGHTS).item() == pytest.approx(wanted, rel=1e-10)


def test_two_views_are_vicreg_with_half_of_its_covariance() -> None:
    x, y = random(7, 5), random(7, 5)
    both = several_vicreg([x, y], [x, y], [(0, 1), (1, 0)], 25.0, 25.0, 2.0)
    torch.testing.assert_close(both, vicreg(x, y, x, y, 25.0, 25.0, 1.0))
