"""Tiles: where they are cut, in which order they come, and what is said when they do not fit."""

import pytest
import torch
from scipy import stats

from ssl_zoo.augmentations.image.views import ViewPipeline
from tests.augmentations.image_cases import build, draw, images


def numbered(batch, side, channels=1):
    """Every pixel holds its row * 1000 + column."""
    rows = torch.arange(side).view(-1, 1) * 1000.0 + torch.arange(side)
    return rows.expand(batch, channels, side, side)


def corners(tiles):
    """Rows and columns of the first pixel of each tile, ``2 x [B, P]``."""
    first = tiles[:, :, 0, 0, 0].long()
    return first // 1000, first % 1000


@pytest.mark.parametrize("jitter", [None, 0, 3])
def test_each_tile_is_a_whole_piece_of_its_cell(jitter):
    d = draw(300)
    tiles = build("image/jigsaw", size=21, grid=3, jitter=jitter)(numbered(300, 86), d)      # cells of 28, 2 left over
    assert tiles.shape == (300, 9, 1, 21, 21)
    rows, columns = corners(tiles)
    assert torch.equal(tiles, (rows * 1000 + columns).view(300, 9, 1, 1, 1) + numbered(300, 21).unsqueeze(1))
    order = d.reports["permutation"]
    row, column = rows - order // 3 * 28, columns - order % 3 * 28                         # place inside the cell
    low, high = {None: (0, 7), 0: (3, 3), 3: (0, 6)}[jitter]
    assert (row.min(), row.max(), column.min(), column.max()) == (low, high, low, high)


def test_places_and_orders_are_uniform():
    d = draw(3000)
    tiles = build("image/jigsaw", size=10, grid=2)(numbered(3000, 32), d)
    order = d.reports["permutation"]
    rows, columns = (value % 16 for value in corners(tiles))
    for value in (rows, columns):
        assert stats.chisquare(torch.bincount(value.flatten(), minlength=7).numpy()).pvalue > 1e-3
    assert stats.chisquare(torch.unique(order, dim=0, return_counts=True)[1].numpy()).pvalue > 1e-3
    assert len(torch.unique(order, dim=0)) == 24
    assert abs(torch.corrcoef(torch.stack((rows[:, 0], columns[:, 0])).double())[0, 1]) < 0.08


def test_without_shuffling_tiles_come_row_by_row():
    d, other = draw(5), draw(5)
    tiles = build("image/jigsaw", size=8, grid=4, shuffle=False)(images(5), d)
    assert torch.equal(d.reports["permutation"], torch.arange(16).expand(5, -1))
    cells = images(5).unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    assert torch.equal(tiles, cells)
    mixed = build("image/jigsaw", size=8, grid=4)(images(5), other)
    for row, tile, order in zip(cells, mixed, other.reports["permutation"], strict=True):
        assert torch.equal(tile, row[order])


def test_tiles_that_do_not_fit_say_what_would():
    with pytest.raises(ValueError, match="an image side of 32 makes 3 cells of 10, too small for tiles of 8 with "
                                         "jitter 2; crop to at least 36 before it, or make the view smaller"):
        build("image/jigsaw", size=8, jitter=2)(images(), draw())
    with pytest.raises(ValueError, match=r"image/patch_grid: an image of 32x32 is smaller than a tile \(40\); crop"):
        build("image/patch_grid", size=40, stride=8)(images(), draw())


@pytest.mark.parametrize("stride, starts", [(None, range(0, 25, 4)), (8, range(0, 25, 8)), (10, [0, 10, 20])])
def test_patch_grid(stride, starts):
    x = images(3)
    tiles = build("image/patch_grid", size=8, stride=stride)(x, draw(3))
    wanted = [x[:, :, top:top + 8, left:left + 8] for top in starts for left in starts]
    assert torch.equal(tiles, torch.stack(wanted, dim=1))


def test_a_view_of_tiles_is_one_tensor_with_the_size_of_a_tile():
    ops = [{"image/random_resized_crop": {"size": 30, "scale": [0.6, 1.0]}}, "image/flip", {"image/jigsaw": {}}]
    grid = [{"image/resize": {"size": 32}}, {"image/patch_grid": {}}]
    pipeline = ViewPipeline([{"ops": ops, "size": 8}, {"ops": grid, "size": 8}],
                            {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})
    views, reports = pipeline(torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8), draw(4))
    assert [tuple(view.shape) for view in views] == [(4, 9, 3, 8, 8), (4, 49, 3, 8, 8)]
    assert reports["0/image/jigsaw/permutation"].shape == (4, 9)
