"""Masks from given noise: by hand, against the authors' way of writing them, and what is refused."""

import math

import numpy as np
import pytest
import torch

from ssl_zoo.modules.masking.random import block_grid, random_blocks, random_masking


def test_the_smallest_noise_stays_in_its_order():
    masking = random_masking(torch.tensor([[0.9, 0.1, 0.5, 0.0]]), 0.5)
    assert masking.keep.tolist() == [[3, 1]]
    assert masking.mask.tolist() == [[True, False, True, False]]
    assert masking.restore.tolist() == [[3, 1, 2, 0]]  # patch 3 comes first of (kept, removed), patch 0 last


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(10, 0.75, 2), (196, 0.75, 49), (7, 0.0, 7)])
def test_the_number_that_stays_is_rounded_down(patches, ratio, kept):
    masking = random_masking(torch.rand(3, patches), ratio)
    assert masking.keep.shape == (3, kept)
    assert masking.mask.sum(1).tolist() == [patches - kept] * 3


@pytest.mark.parametrize("ratio", [1.0, -0.1, 0.95])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio={ratio} keeps .* of 10 patches; wanted a share from 0 to 1"):
        random_masking(torch.rand(1, 10), ratio)


def test_squares_by_hand():
    # Four squares of 2 x 2 patches; 60 % of them, rounded up, are three: all but the one of the largest noise.
    mask = random_blocks(torch.tensor([[0.1, 0.2, 0.9, 0.0]]), (4, 4), 2, 0.6).view(4, 4)
    assert mask.int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_squares_equal_a_permutation_that_is_enlarged():
    noise = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))
    masks = random_blocks(noise, (6, 8), 2, 0.6)  # 3 x 4 squares
    for row, mask in zip(noise, masks, strict=True):
        small = np.zeros(12, dtype=int)
        small[np.argsort(row.numpy())[: math.ceil(12 * 0.6)]] = 1
        wanted = np.kron(small.reshape(3, 4), np.ones((2, 2), dtype=int))
        assert mask.view(6, 8).int().tolist() == wanted.tolist()


def test_squares_that_do_not_tile_and_noise_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"mask_block=3: squares .* do not tile 8 x 4 patches; these do: 1, 2, 4"):
        block_grid((8, 4), 3)
    with pytest.raises(ValueError, match="noise has 5 numbers a sample, wanted 4"):
        random_blocks(torch.rand(1, 5), (4, 4), 2, 0.5)
