"""RandAugment of Google's TPU code: its operations, its magnitudes beyond level 10, its grey squares and contrast."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image import rand_augment as ops
from ssl_zoo.augmentations.image.rand_augment_tpu import CUTOUT, GREY
from tests.augmentations.image_cases import draw, images

MIDDLE = torch.tensor([[0.5, 0.5]], dtype=torch.float64)


def made(**options):
    return registry.build({"image/rand_augment_tpu": options}, 32)


def one(module, x, op, magnitude=0.0, centre=MIDDLE):
    return module.applied(x, torch.tensor([op]), torch.tensor([magnitude], dtype=torch.float64), centre)


def test_sixteen_operations_come_equally_often():
    op, _ = made(num_ops=2).parameters_of(draw(8000))
    share = op.flatten().bincount(minlength=17) / op.numel()
    assert share[0] == 0 and share[1:].sub(1 / 16).abs().max() < 0.01


@pytest.mark.parametrize("magnitude", [5, 27])
def test_magnitudes_go_on_in_the_same_lines(magnitude):
    op, value = made(num_ops=1, magnitude=magnitude).parameters_of(draw(2000))
    level, of = magnitude / 10, lambda which: value[op == which].abs().unique()
    wanted = {
        ops.SHEAR_X: 0.3 * level, ops.TRANSLATE_Y: 100 * level, ops.ROTATE: 30 * level, ops.COLOR: 0.1 + 1.8 * level,
        ops.POSTERIZE: min(int(4 * level), 8), ops.SOLARIZE: int(256 * level) / 255,
        ops.SOLARIZE_ADD: int(110 * level) / 255,
    }  # fmt: skip
    for which, number in wanted.items():
        assert of(which).tolist() == pytest.approx([number])


def test_a_square_becomes_grey_and_is_cut_off_at_the_border():
    module, x = made(magnitude=5, cutout=10), images(1, height=32, width=32)
    y = one(module, x, CUTOUT)
    assert bool((y[..., 11:21, 11:21] == GREY).all()) and int((y != x).any(1).sum()) <= 100
    corner = one(module, x, CUTOUT, centre=torch.zeros(1, 2, dtype=torch.float64))
    assert bool((corner[..., :5, :5] == GREY).all()) and torch.equal(corner[..., 5:, :], x[..., 5:, :])


def test_contrast_blends_with_the_mean_of_the_histogram():
    x = images(1, height=32, width=32)
    grey = 32 * 32 / 256 / 255  # the number of pixels over that of the bins, as theirs
    torch.testing.assert_close(one(made(), x, ops.CONTRAST, 0.5), grey + 0.5 * (x - grey))
    large = torch.full((1, 3, 300, 300), 0.5)
    torch.testing.assert_close(one(made(), large, ops.CONTRAST, 0.0), torch.ones_like(large))


def test_other_operations_are_those_of_rand_augment():
    module, x = made(), images(1, height=32, width=32)
    for op, magnitude in ((ops.BRIGHTNESS, 1.4), (ops.TRANSLATE_X, 5.0), (ops.SOLARIZE_ADD, 0.2)):
        number = torch.tensor([magnitude], dtype=torch.float64)
        wanted = ops.apply_step(x, torch.tensor([op]), number, fill=GREY)
        torch.testing.assert_close(one(module, x, op, magnitude), wanted)
