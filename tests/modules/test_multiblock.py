"""I-JEPA's blocks: sizes by hand, places, what is left of a context, and what cannot be drawn."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.augmentations.rng import BatchRNG, RecordedDraw
from ssl_zoo.modules.masking.multiblock import MultiBlock, RandomPatches, block_size, rectangles, shortest

GRID = (14, 14)


def draw(micro: int = 0):
    return BatchRNG(0, 0, micro, torch.arange(4)).shared("masks")


def test_sizes_by_hand():
    # A fifth of 196 patches at 3 : 2: sqrt(39 * 1.5) = 7.6 rows, sqrt(39 / 1.5) = 5.1 columns.
    assert block_size(1.0, (0.15, 0.2), (0.75, 1.5), GRID) == (8, 5)
    assert block_size(0.0, (0.15, 0.2), (0.75, 1.5), GRID) == (5, 6)  # sqrt(29 * 0.75) = 4.7, sqrt(29 / 0.75) = 6.2
    assert block_size(1.0, (0.85, 1.0), (1.0, 1.0), GRID) == (13, 13)  # always smaller than the grid


def test_a_rectangle_covers_its_rows_and_columns():
    block = rectangles(torch.tensor([1, 0]), torch.tensor([2, 0]), (2, 1), (3, 4))
    assert block[0].nonzero().flatten().tolist() == [1 * 4 + 2, 2 * 4 + 2]
    assert block[1].nonzero().flatten().tolist() == [0, 4]


def test_lists_are_cut_to_the_shortest_and_keep_their_first():
    masks = torch.tensor([[[0, 1, 1, 1], [1, 0, 0, 1]]], dtype=torch.bool)
    assert shortest(masks, masks).context.tolist() == [[[1, 2], [0, 3]]]


@pytest.mark.parametrize("micro", range(5))
def test_blocks_of_a_batch(micro):
    masks = MultiBlock()
    height, width = masks.sizes(draw(micro), GRID)[0]
    context, targets = masks(draw(micro), 8, GRID)
    assert context.shape[:2] == (1, 8) and targets.shape == (4, 8, height * width)
    assert 10 < context.shape[2] < 196
    for image in range(8):
        assert not set(context[0, image].tolist()) & set(targets[:, image].flatten().tolist())
        for block in targets[:, image]:
            rows, columns = block // 14, block % 14
            assert int(rows.max() - rows.min()) + 1 == height and int(columns.max() - columns.min()) + 1 == width
            assert rows.max() < 13 and columns.max() < 13  # the last place is never drawn
    assert len({tuple(block) for block in targets[0].tolist()}) > 1, "every image has places of its own"


def test_an_image_does_not_depend_on_how_many_others_there_are():
    masks = MultiBlock(targets=3, target_scale=(0.3, 0.5), context_scale=(0.3, 0.5), min_keep=6)
    sizes = masks.sizes(draw(), (8, 8))
    few, many = (masks.place(draw(), rows, (8, 8), sizes) for rows in (3, 9))
    for a, b in zip(few, many, strict=True):
        assert torch.equal(a, b[:, :3])


def test_a_context_without_room_gives_up_target_blocks_from_the_last():
    masks = MultiBlock(targets=2, target_scale=(0.75, 0.75), context_scale=(0.75, 0.75), min_keep=4)
    (context,), targets = masks.place(draw(), 16, (4, 4), masks.sizes(draw(), (4, 4)))
    assert (targets.sum(-1) == 9).all()  # 3 x 3 at the one place there is: nothing is left for the context
    assert torch.equal(context, targets[0])


def test_overlap_can_be_allowed():
    context, targets = MultiBlock(allow_overlap=True)(draw(), 4, GRID)
    assert context.shape[2] > 150 and set(targets[0, 0].tolist()) & set(context[0, 0].tolist())


def test_blocks_that_are_too_small_are_refused():
    wanted = "masks.min_keep=10: a block of 3 x 3 of the 8 x 8 patches must have more; try 8, or larger scales"
    with pytest.raises(ValueError, match=wanted):
        MultiBlock().check((8, 8))
    MultiBlock(min_keep=4).check((8, 8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_scale": (0.2, 0.1)}, r"masks.target_scale=\[0.2, 0.1\] wants a smallest and a largest value"),
        ({"context_scale": (0.5, 1.5)}, r"masks.context_scale=\[0.5, 1.5\] wants"),
        ({"targets": 0}, "wants 1 target and 1 context block or more, got 0 and 1"),
    ],
)
def test_wrong_options_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MultiBlock(**given)


def test_random_patches_split_the_image():
    noise = torch.tensor([[0.3, 0.1, 0.2, 0.0], [0.0, 0.1, 0.2, 0.3]])
    found = RandomPatches((0.5, 0.5))(RecordedDraw({"ratio": torch.tensor(0.7), "noise": noise}), 2, (2, 2))
    assert found.context.tolist() == [[[3, 1], [0, 1]]] and found.targets.tolist() == [[[2, 0], [2, 3]]]
    with pytest.raises(ValueError, match=r"mask_ratio=0.9 keeps 0 of 4 patches"):
        RandomPatches((0.5, 0.9)).check((2, 2))
    with pytest.raises(ValueError, match=r"masks.ratio=\[0.5, 1.0\] wants"):
        RandomPatches((0.5, 1.0))
