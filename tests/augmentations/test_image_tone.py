"""Tone operations against torchvision's functional, sample by sample; the 8-bit ones on its uint8 images."""

import pytest
import torch
import torchvision.transforms.functional as TF

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.tone import autocontrast, equalize, posterize, sharpen
from tests.augmentations.image_cases import as_uint8, build, draw, eight_bit, images, largest


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (20, 28), (8, 9)])
def test_equalize_is_torchvisions_on_uint8(channels, shape):
    # 8 x 9 pixels are too few for 255 steps: such channels stay as they are. No error at all.
    x = eight_bit(32, channels, *shape)
    assert torch.equal(as_uint8(equalize(x)), TF.equalize(as_uint8(x)))
    assert largest(equalize(x) * 255, (equalize(x) * 255).round()) < 1e-4


@pytest.mark.parametrize("bits", range(9))
def test_posterize_is_torchvisions_on_uint8(bits):
    x = eight_bit()
    wanted = TF.posterize(as_uint8(x), bits).float() / 255
    assert largest(posterize(x, torch.full((32,), bits)), wanted) < 1e-6


def test_autocontrast():
    x = eight_bit() * 0.8 + 0.1
    assert largest(autocontrast(x), TF.autocontrast(x)) < 1e-6
    assert torch.equal(autocontrast(x)[-1], x[-1])                   # an image of one value


@pytest.mark.parametrize("shape", [(32, 32), (5, 3), (2, 9)])
def test_sharpen(shape):
    x, factor = images(height=32, width=32)[..., :shape[0], :shape[1]], torch.linspace(0, 3, 32)
    wanted = [TF.adjust_sharpness(row, f) for row, f in zip(x, factor.tolist(), strict=True)]
    assert largest(sharpen(x, factor), torch.stack(wanted)) < 1e-6


WHOLE = {
    "image/autocontrast": (TF.autocontrast, {}),
    "image/invert": (TF.invert, {}),
    "image/equalize": (lambda row: TF.equalize(as_uint8(row)).float() / 255, {}),
    "image/posterize": (lambda row: TF.posterize(as_uint8(row), 3).float() / 255, {"bits": 3}),
    "image/sharpness": (lambda row: TF.adjust_sharpness(row, 1.7), {"factor": 1.7}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_share_of_the_samples_is_changed(name):
    function, options = WHOLE[name]
    x, d = eight_bit(), draw()
    y, applied = build(name, p=0.4, **options)(x, d), d.uniform("apply") < 0.4
    assert 5 < applied.sum() < 22
    assert torch.equal(y[~applied], x[~applied])
    assert largest(y[applied], torch.stack([function(row) for row in x[applied]])) < 1e-6


@pytest.mark.parametrize("name", WHOLE)
def test_all_and_none(name):
    function, options = WHOLE[name]
    x = eight_bit()
    assert torch.equal(build(name, p=0.0, **options)(x, draw()), x)
    assert largest(build(name, p=1.0, **options)(x, draw()), torch.stack([function(row) for row in x])) < 1e-6


def test_each_sample_draws_its_own_strength():
    x, d = eight_bit(), draw()
    y = build("image/posterize", bits=[2, 5], p=1.0)(x, d)
    bits = 2 + d.integers("bits", 4)
    assert set(bits.tolist()) == {2, 3, 4, 5}
    assert torch.equal(y, posterize(x, bits))
    factor = 0.5 + d.uniform("factor")
    assert largest(build("image/sharpness", factor=[0.5, 1.5], p=1.0)(x, d), sharpen(x, factor)) < 1e-6


@pytest.mark.parametrize("entry, message", [
    ({"image/posterize": {}}, "image/posterize needs the option 'bits'"),
    ({"image/posterize": {"bits": 9}}, "image/posterize: bits is [9, 9], it must be [low, high] with 0 <= low <= high"),
    ({"image/posterize": {"bits": 2.5}},
     "image/posterize: bits is 2.5, it must be a whole number in [0, 8] or a range of them"),
    ({"image/sharpness": {"factor": -1}}, "image/sharpness: factor is [-1, -1], it must be [low, high] with 0 <= low"),
    ({"image/invert": {"p": 2}}, "image/invert: p is 2, it must lie in [0, 1]"),
])
def test_wrong_options_are_named(entry, message):
    (problem,) = registry.check([entry])
    assert problem.startswith(message)
