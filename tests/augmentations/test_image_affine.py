"""Flips, turns and affine maps against torchvision's functional, sample by sample."""

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode

from ssl_zoo.augmentations import registry
from tests.augmentations.image_cases import build, draw, images, largest

MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}


def test_vertical_flip():
    x, d = images(), draw()
    y = build("image/vertical_flip")(x, d)
    assert 8 < d.reports["flipped"].sum() < 24
    for row, out, flipped in zip(x, y, d.reports["flipped"], strict=True):
        assert torch.equal(out, TF.vflip(row) if flipped else row)


def test_rotate90_turns_counter_clockwise():
    x, d = images(64), draw(64)
    y = build("image/rotate90")(x, d)
    assert torch.bincount(d.reports["turns"], minlength=4).min() > 6
    for row, out, turns in zip(x, y, d.reports["turns"].tolist(), strict=True):
        assert torch.equal(out, torch.rot90(row, turns, (1, 2)))


def test_rotate90_needs_squares():
    with pytest.raises(ValueError, match="image/rotate90: a quarter turn needs square images, these are 32x40; put"):
        build("image/rotate90")(images(width=40), draw())


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("shape, fill", [((32, 32), None), ((33, 32), 0.5), ((24, 40), [0.2, 0.4, 0.6])])
def test_random_rotation(interpolation, shape, fill):
    x, d = images(64, height=shape[0], width=shape[1]), draw(64)
    y = build("image/random_rotation", degrees=180, interpolation=interpolation, fill=fill)(x, d)
    wanted = [TF.rotate(row, angle, MODES[interpolation], fill=fill)
              for row, angle in zip(x, d.reports["angle"].tolist(), strict=True)]
    assert d.reports["angle"].min() < -90 and d.reports["angle"].max() > 90
    assert largest(y, torch.stack(wanted)) < 1e-5


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("shape", [(32, 32), (25, 40)])
def test_random_affine(interpolation, shape):
    x, d = images(64, height=shape[0], width=shape[1]), draw(64)
    op = build("image/random_affine", degrees=30, translate=[0.1, 0.3], scale=[0.7, 1.3], shear=[-10, 10, -20, 20],
               interpolation=interpolation, fill=0.25)
    parameters = zip(*(values.tolist() for values in op.parameters_of(d, *shape)), strict=True)
    wanted = [TF.affine(row, angle, shift, scale, shear, MODES[interpolation], fill=0.25)
              for row, (angle, shift, scale, shear) in zip(x, parameters, strict=True)]
    assert largest(op(x, d), torch.stack(wanted)) < 1e-5


def test_affine_of_nothing_changes_nothing():
    assert torch.equal(build("image/random_affine", degrees=0)(images(), draw()), images())


@pytest.mark.parametrize("entry, message", [
    ({"image/random_rotation": {"degrees": -3}}, "degrees is -3, one number must not be negative; write [low, high]"),
    ({"image/random_rotation": {"degrees": [9, 3]}}, "degrees is [9, 3], it must be [low, high] with"),
    ({"image/random_rotation": {"degrees": 9, "interpolation": "bicubic"}},
     "interpolation=bicubic: there are: bilinear, nearest"),
    ({"image/random_affine": {"translate": [0.1, 1.1]}},
     "translate is [0.1, 1.1], it must be two shares in [0, 1]: across and down"),
])
def test_wrong_options_are_named(entry, message):
    (problem,) = registry.check([entry])
    assert problem.startswith(f"{next(iter(entry))}: {message}")


def test_a_fill_for_each_channel_must_fit_the_channels():
    op = build("image/random_rotation", degrees=9, fill=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"fill is \[0.1, 0.2\], it must be one number or 3, one for each channel"):
        op(images(), draw())
