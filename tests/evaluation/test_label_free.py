"""Measures without labels: numbers by hand, the papers written as loops, and what a collapse is called."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.data.image.second_look import SecondLook
from ssl_zoo.evaluation.label_free import (
    alignment,
    blocks_of,
    look,
    measure,
    rankme,
    rows_of,
    uniformity,
)
from tests.data import helpers


def test_rankme_of_equal_directions_is_their_number() -> None:
    assert rankme(torch.eye(8).repeat(5, 1)) == pytest.approx(8, abs=1e-4)
    assert rankme(torch.ones(40, 8)) == pytest.approx(1, abs=1e-4)
    # Two singular values, 3 and 1: p = 3/4 and 1/4.
    wanted = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_rankme_is_equation_1_of_its_paper(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    sigma = torch.linalg.svdvals(x).tolist()
    p = [s / sum(sigma) + 1e-7 for s in sigma]
    assert rankme(x) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-4)


def test_alignment_is_the_mean_squared_distance_of_pairs_on_the_sphere() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    y = torch.tensor([[7.0, 0.0], [3.0, 0.0], [-1.0, -1.0]])  # equal, at a right angle, opposite
    assert alignment(x, y) == pytest.approx((0 + 2 + 4) / 3)


def test_uniformity_is_that_of_the_paper_written_as_loops() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])  # squared distances 2, 2, 4
    assert uniformity(x) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert uniformity(torch.ones(4, 3)) == 0 and uniformity(torch.ones(1, 3)) == 0


def test_a_collapse_is_named() -> None:
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(64, 16, generator=generator)
    assert measure(good, good).collapse is None and measure(good, good).images == 64
    constant = torch.ones(64, 16) + 1e-4 * good
    assert measure(constant, constant).collapse == "every sample gets the same features"
    line = torch.randn(64, 1, generator=generator) * torch.ones(16)
    assert measure(line, line).collapse == "the features vary in one direction only"
    assert measure(good * torch.nan, good).collapse == "features are not finite"


def test_the_second_look_is_the_mirrored_middle(tmp_path) -> None:
    class View:
        class view:
            crops_first = False

        def __call__(self, images):
            return images

    image = torch.arange(64.0).view(1, 1, 8, 8)
    seen = SecondLook(View())(image)  # the middle 6 x 6, at the old size
    assert seen.shape == image.shape and set(seen.unique().tolist()) == set(image[..., 1:7, 1:7].flatten().tolist())
    assert torch.equal(seen[0, 0, 0], image[0, 0, 1, [6, 6, 5, 4, 3, 3, 2, 1]])
    View.view.crops_first = True
    assert torch.equal(SecondLook(View())(image), image[..., 1:7, 1:7].flip(-1))


class Pooled(torch.nn.Module):
    """Mean and deviation of the channels: what mirroring does not change."""

    def embed(self, view: torch.Tensor) -> torch.Tensor:
        return torch.cat([view.mean((2, 3)), view.std((2, 3))], 1)


def test_files_and_arrays_are_looked_at_and_the_numbers_repeat(tmp_path) -> None:
    helpers.pictures(tmp_path, 12)
    for data in (helpers.memory(), helpers.files(tmp_path)):
        measured, features = look(Pooled(), data)
        assert measured == look(Pooled(), data)[0]
        assert measured.images == len(data.train) and features.features.shape[1] == measured.features == 6
        assert 0 < measured.alignment < 0.5


def test_rows_are_evenly_spaced() -> None:
    assert rows_of(10, 4).tolist() == [0, 2, 5, 7] and rows_of(3, 50).tolist() == [0, 1, 2] and len(rows_of(0, 3)) == 0


def test_sharded_data_are_read_in_blocks() -> None:
    rows = blocks_of(100, 8, 2)
    assert rows.tolist() == [0, 1, 2, 3, 50, 51, 52, 53]
    assert blocks_of(3, 50, 16).tolist() == [0, 1, 2] and len(blocks_of(10_000, 2_048, 16)) == 2_048
