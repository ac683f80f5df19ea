"""Patches and losses of masked images by hand and as loops."""

import math

import pytest
import torch

from ssl_zoo.losses.reconstruction import (
    masked_absolute_error,
    masked_square_error,
    patchify,
    repaint,
    standardize,
    unpatchify,
)

ALL = torch.tensor(6.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pixels_of_a_patch_stand_row_by_row_with_channels_last():
    image = torch.arange(32.0).view(1, 2, 4, 4)  # channel 1 is channel 0 plus 16
    patches = patchify(image, 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 1].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]  # the second patch is to the right of the first
    assert patches[0, 2, 0] == 8


def test_patches_become_the_image_again_on_any_grid():
    images = draw(2, 3, 6, 9)
    assert torch.equal(unpatchify(patchify(images, 3), 3, (2, 3)), images)


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="images of 6 x 8 px do not divide into patches of 4 px"):
        patchify(torch.zeros(1, 3, 6, 8), 4)


def test_standard_patches_by_hand():
    # Mean 1, unbiased variance 2.
    standard = standardize(torch.tensor([[[0.0, 2.0]]], dtype=torch.float64))
    wanted = 1 / math.sqrt(2 + 1e-6)
    assert standard.patches.flatten().tolist() == pytest.approx([-wanted, wanted], abs=1e-12)
    assert (standard.mean.item(), standard.deviation.item()) == pytest.approx((1.0, math.sqrt(2 + 1e-6)))
    assert standardize(torch.ones(1, 1, 4)).patches.abs().max() == 0  # a patch of one colour


def test_only_hidden_patches_count():
    p, target = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 3.0], [100.0, 0.0], [2.0, 0.0]]])
    mask = torch.tensor([[True, False, True]])
    # Squares: (1 + 9) / 2 = 5 and 4 / 2 = 2; absolute values: 2 and 1.
    assert masked_square_error(p, target, mask, torch.tensor(2.0)).item() == pytest.approx(3.5)
    assert masked_absolute_error(p, target, mask, torch.tensor(2.0)).item() == pytest.approx(1.5)


@pytest.mark.parametrize(("loss", "of"), [(masked_square_error, lambda d: d * d), (masked_absolute_error, abs)])
def test_losses_equal_the_papers_as_loops(loss, of):
    p, target, mask = draw(2, 3, 4), draw(2, 3, 4, seed=1), torch.tensor([[1, 1, 0], [0, 1, 0]])
    hidden = [(i, j) for i in range(2) for j in range(3) if mask[i, j]]
    values = [of((p - target)[i, j, k].item()) for i, j in hidden for k in range(4)]
    assert loss(p, target, mask, torch.tensor(3)).item() == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_shares_of_a_batch_with_the_mean_count_average_to_the_whole():
    p, target = draw(4, 3, 2), draw(4, 3, 2, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])  # 5 and 1 in the halves
    halves = [masked_square_error(p[i : i + 2], target[i : i + 2], mask[i : i + 2], torch.tensor(3.0)) for i in (0, 2)]
    whole = masked_square_error(p, target, mask, torch.tensor(6.0))
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-12)


def test_half_precision_is_summed_in_float32():
    p = torch.full((1, 6, 3), 0.1, dtype=torch.bfloat16)
    loss = masked_square_error(p, torch.zeros_like(p), torch.ones(1, 6), ALL)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(p[0, 0, 0].float().item() ** 2, rel=1e-6)


def test_repainted_images_keep_what_was_seen():
    images, pred = draw(1, 1, 4, 4), torch.full((1, 4, 4), 7.0, dtype=torch.float64)
    mask = torch.tensor([[False, True, False, False]])
    seen, painted = repaint(patchify(images, 2), pred, mask, 2, (2, 2))
    assert not seen[..., :2, 2:].any() and (painted[..., :2, 2:] == 7).all()
    for x in (seen, painted):
        assert torch.equal(x[..., 2:, :], images[..., 2:, :]) and torch.equal(x[..., :2, :2], images[..., :2, :2])
