"""Masks of blocks and single patches: by hand, their shares, and that a row's mask is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.modules.masking.block import RatioMasks, StratifiedMasks, block_masks, masked_patches, random_masks


def rng(slots: Tensor) -> BatchRNG:
    return BatchRNG(seed=0, epoch=0, micro=0, slot=slots)


def test_one_block_by_hand():
    # Area 4 and aspect 1 make 2 x 2; top 0.4 of 3 places is row 1, left 0.9 of 3 places is column 2.
    numbers = torch.tensor([[[0.7, 0.5, 0.4, 0.9]]])
    (mask,) = block_masks(torch.tensor([4]), lambda call: numbers, (4, 4), smallest=4)
    assert mask.nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_ten_blocks_that_do_not_fit_end_a_mask_and_no_more_are_drawn():
    calls = []

    def too_high(call: int) -> Tensor:
        calls.append(call)
        return torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(2, 5, 4)  # area 12, three times as high as wide: 6 > 4 rows

    masks = block_masks(torch.tensor([12, 0]), too_high, (4, 4), smallest=1)
    assert (masks.sum().item(), calls) == (0, [0, 1])


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (4, 6)])
def test_never_more_than_the_target_is_hidden_and_little_less(grid):
    generator = torch.Generator().manual_seed(0)
    targets = torch.linspace(0, 0.5, 64) * grid[0] * grid[1]
    masks = block_masks(targets, lambda call: torch.rand(64, 8, 4, generator=generator), grid, smallest=1)
    hidden = masks.sum((1, 2))
    assert (hidden <= targets).all()
    assert (targets - hidden).mean() < 1


def test_half_of_the_crops_of_ibot_are_whole_and_the_others_hide_a_tenth_to_a_half():
    masks = RatioMasks()(rng(torch.arange(2000)), 2, 2000, (14, 14))
    share = masks.float().mean(1)
    assert masks.shape == (4000, 196)
    assert (share == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert 0.05 < share[share > 0].min() and share.max() <= 0.5
    assert share[share > 0].mean().item() == pytest.approx(0.295, abs=0.02)


@pytest.mark.parametrize("shape", ["block", "random"])
def test_the_mask_of_a_row_does_not_depend_on_the_others(shape):
    masks, slots = RatioMasks([0.3], [0.2], shape), torch.arange(12)
    together = masks(rng(slots), 2, 12, (8, 8)).view(2, 12, 64)
    alone = masks(rng(slots[5:6]), 2, 1, (8, 8)).view(2, 1, 64)
    assert torch.equal(together[:, 5:6], alone)
    assert not torch.equal(together[0], together[1])  # each crop has its own


@pytest.mark.parametrize("masks", [RatioMasks(), RatioMasks(shape="random"), StratifiedMasks()])
def test_masks_of_a_batch_on_a_device_are_drawn_on_the_host(masks):
    there = BatchRNG(seed=0, epoch=0, micro=0, slot=torch.arange(12), device="meta")
    assert torch.equal(masks(there, 2, 12, (8, 8)), masks(rng(torch.arange(12)), 2, 12, (8, 8)))


def test_single_patches_by_hand():
    order = torch.tensor([[3, 0, 2, 1], [0, 1, 2, 3]])
    assert random_masks(torch.tensor([2, 1]), order).nonzero().tolist() == [[0, 0], [0, 2], [1, 3]]


def test_ratios_of_dinov2_are_spread_evenly():
    # The least of each quarter of [0.1, 0.5]: a tenth, two, three and four tenths of 64 patches, rounded down.
    counts = StratifiedMasks(0.5, (0.1, 0.5)).counts(torch.zeros(4), 8, 64)
    assert counts.tolist() == [6, 12, 19, 25, 0, 0, 0, 0]


def test_dinov2_masks_half_of_all_crops_and_not_half_of_each_view():
    masks = StratifiedMasks()(rng(torch.arange(32)), 2, 32, (8, 8)).view(2, 32, 64)
    masked = masks.any(2).sum(1)
    assert masked.sum() == 32 and masked[0] != masked[1]
    assert masks.float().mean(2).max() <= 0.5


def test_hidden_patches_by_hand():
    index, counts = masked_patches(torch.tensor([[False, True, True], [False, False, False], [True, False, False]]))
    assert (index.tolist(), counts.tolist()) == ([1, 2, 6], [2, 2, 1])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RatioMasks([0.3], [0.2, 0.1]), "spreads has 2 numbers, wanted one for each of ratios, 1"),
        (lambda: RatioMasks([0.1], [0.2]), r"ratios \[0.1\] with spreads \[0.2\] leave \[0, 1\]"),
        (lambda: RatioMasks(shape="blocks"), "masks.shape=blocks: did you mean 'block'"),
        (lambda: StratifiedMasks(1.5), r"share=1.5 and ratios=\[0.1, 0.5\] must lie in \[0, 1\]"),
    ],
)
def test_wrong_masks_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
