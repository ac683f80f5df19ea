"""Tiles: where they are cut, in which order they come, and what is said when they do not fit."""

import pytest
import torch
from scipy import stats

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
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


def test_cells_come_column_by_column_and_the_last_place_is_never_drawn():
    d = draw(400)
    op = build("image/jigsaw", size=8, grid=3, shuffle=False, order="columns", last=False)
    rows, columns = corners(op(numbered(400, 36), d))                                        # cells of 12
    assert torch.equal(d.reports["permutation"], torch.tensor([0, 3, 6, 1, 4, 7, 2, 5, 8]).expand(400, -1))
    assert torch.equal(columns // 12, torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]).expand(400, -1))
    assert ((rows % 12).max(), (columns % 12).max(), (rows % 12).min()) == (3, 3, 0)         # of 0..4
    assert torch.equal(d.reports["box"], torch.stack((rows, columns, *[torch.full_like(rows, 8)] * 2), 2))


def test_cells_that_overlap_reach_beyond_the_image_where_it_is_black():
    op = build("image/jigsaw", size=12, grid=2, overlap=2, shuffle=False)
    assert op.cells(20, 22).tolist() == [[0, 0, 12, 13], [0, 11, 12, 13], [10, 0, 12, 13], [10, 11, 12, 13]]
    tiles = op(torch.ones(50, 1, 20, 20), draw(50))
    wanted = torch.zeros(12, 12)
    wanted[:10, :10] = 1
    assert torch.equal(tiles[:, 3], wanted.expand(50, 1, 12, 12)) and tiles[:, 0].min() == 1


def test_every_tile_is_changed_with_draws_of_its_own():
    each = [{"image/color_jitter": {"brightness": [0.1, 1.0]}}, {"image/resize": {"size": 4}}, "image/flip"]
    d, plain = draw(5), build("image/jigsaw", size=8, shuffle=False)(images(5) * 0 + 0.5, draw(5))
    tiles = build("image/jigsaw", size=8, shuffle=False, each=each)(images(5) * 0 + 0.5, d)
    assert plain.shape == (5, 9, 3, 8, 8) and tiles.shape == (5, 9, 3, 4, 4)
    assert len(tiles.mean((2, 3, 4)).flatten().unique()) == 45
    assert d.reports["image/flip/flipped"].shape == (5, 9)
    alone = build("image/jigsaw", size=8, shuffle=False, each=each)(
        images(2) * 0 + 0.5, Draw(stream_key(0, "test", 0), torch.tensor([3, 1])))
    assert torch.equal(alone, tiles[[3, 1]])


def test_spaced_tiles_keep_their_distance_and_begin_anywhere():
    d = draw(4000)
    op = build("image/spaced_tiles", size=8, gap=4, jitter=1, grid=[2, 3])
    rows, columns = corners(op(numbered(4000, 40), d))
    assert torch.equal(d.reports["box"][..., :2], torch.stack((rows, columns), 2))
    places = torch.tensor([[0, 0, 0, 12, 12, 12], [0, 12, 24, 0, 12, 24]])
    first = [value - place for value, place in zip((rows, columns), places, strict=True)]
    for start, room in zip(first, (12, 8), strict=True):                                     # 40 + 4 - 2 * 12, - 3 * 12
        assert (start.amax(1) - start.amin(1)).max() == 2                                    # jitter in both directions
        inner = start.double().mean(1)
        assert -1 <= inner.min() < 0.4 and min(room, 11) - 0.4 < inner.max() <= 12
    assert rows.min() == 0 and columns.min() == 0 and columns.max() == 32


@pytest.mark.parametrize(("name", "options", "words"), [
    ("jigsaw", {"order": "row"}, "order=row: did you mean 'rows'?"),
    ("jigsaw", {"overlap": -1}, "overlap is -1, it must not be negative"),
    ("jigsaw", {"each": [{"image/flipp": {}}]}, "each: no augmentation is called 'image/flipp': did you mean"),
    ("spaced_tiles", {"gap": 2, "jitter": 2}, "gap is 2 and jitter 2: tiles must not change places; wanted a gap of"),
])
def test_settings_of_tiles_that_make_no_sense(name, options, words):
    assert any(words in line for line in registry.check([{f"image/{name}": options}]))


def test_an_image_too_small_for_spaced_tiles_says_what_would_do():
    with pytest.raises(ValueError, match="an image of 32x32 is too small for 3 x 3 tiles of 8 with gaps of 8; crop to "
                                         "at least 40x40 before it, or make grid, gap or the view smaller"):
        build("image/spaced_tiles", size=8, gap=8, grid=3)(images(), draw())
