"""Every image operation against torchvision's functional, sample by sample, for the parameters that were drawn."""

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, blend, jitter_by_mask, rotate_hue
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.augmentations.image_cases import draw, images, largest

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
ADJUST = {BRIGHTNESS: TF.adjust_brightness, CONTRAST: TF.adjust_contrast, SATURATION: TF.adjust_saturation,
          HUE: TF.adjust_hue}


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("shape, size", [((32, 32), 32), ((48, 80), 32), ((20, 16), 40), ((96, 64), 24)])
def test_random_resized_crop(interpolation, shape, size):
    x, d = images(64, height=shape[0], width=shape[1]), draw(64)
    op = registry.build({"image/random_resized_crop": {"interpolation": interpolation}}, size)
    y = op(x, d)
    wanted = [TF.resized_crop(row, *box, [size, size], MODES[interpolation], antialias=True).clamp(0, 1)
              for row, box in zip(x, d.reports["box"].tolist(), strict=True)]
    assert y.shape == (64, 3, size, size)
    assert largest(y, torch.stack(wanted)) < 1e-5


def test_random_resized_crop_of_a_whole_image_changes_nothing():
    options = {"scale": [1, 1], "ratio": [1, 1], "interpolation": "bicubic"}
    op = registry.build({"image/random_resized_crop": options}, 32)
    assert largest(op(images(), draw()), images()) < 1e-6


@pytest.mark.parametrize("shape, wanted", [((10, 90), [0, 38, 10, 13]), ((90, 10), [38, 0, 13, 10])])
def test_random_resized_crop_falls_back_to_the_centre(shape, wanted):
    # No box of this ratio with at least 90 % of the area fits; torchvision then takes the largest central one.
    op = registry.build({"image/random_resized_crop": {"scale": [0.9, 1.0]}}, 8)
    assert op.boxes(draw(50), *shape).tolist() == [wanted] * 50


@pytest.mark.parametrize("interpolation", MODES)
def test_a_uint8_image_is_cropped_as_the_batch_is(interpolation):
    op = registry.build({"image/random_resized_crop": {"interpolation": interpolation}}, 32)
    x = (images(16, height=60, width=47) * 255).round().to(torch.uint8)
    batch = op(x.float() / 255, draw(16))
    single = [op(x[i:i + 1], Draw(stream_key(0, "test", 0), torch.tensor([i]))) for i in range(16)]
    assert single[0].dtype == torch.uint8
    assert largest(torch.cat(single).float() / 255, batch) <= 2 / 255


def test_random_crop_pad():
    x, d = images(), draw()
    y = registry.build({"image/random_crop_pad": {"padding": 4}}, 32)(x, d)
    corners = d.reports["corner"].tolist()
    wanted = [TF.crop(row, *corner, 32, 32) for row, corner in zip(TF.pad(x, [4]), corners, strict=True)]
    assert torch.equal(y, torch.stack(wanted))
    assert d.reports["corner"].min() == 0 and d.reports["corner"].max() == 8


def test_random_crop_pad_of_a_small_image_says_so():
    with pytest.raises(ValueError, match=r"an image of 16x16 padded by 4 is smaller than the view \(32x32\); use"):
        registry.build({"image/random_crop_pad": {}}, 32)(images(height=16, width=16), draw())


@pytest.mark.parametrize("height, width", [(50, 70), (70, 50), (36, 36)])
def test_resize_random_crop(height, width):
    x, d = images(60, height=height, width=width), draw(60)
    y = registry.build({"image/resize_random_crop": {"shorter": 36}}, 32)(x, d)
    resized = TF.resize(x, 36, antialias=True)
    corners = d.reports["corner"]
    wanted = [TF.crop(row, *corner, 32, 32) for row, corner in zip(resized, corners.tolist(), strict=True)]
    assert largest(y, torch.stack(wanted)) == 0
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [resized.shape[2] - 32, resized.shape[3] - 32]
    with pytest.raises(ValueError, match="shorter is 36, and the window 40x40; set shorter to at least 40"):
        registry.build({"image/resize_random_crop": {"shorter": 36}}, 40)(x, d)


@pytest.mark.parametrize("interpolation", MODES)
def test_resize_and_centre_crops(interpolation):
    x = images(4, height=50, width=70)
    resize = registry.build({"image/resize": {"interpolation": interpolation}}, 32)
    both = registry.build({"image/resize_center_crop": {"interpolation": interpolation}}, 28)
    mode = MODES[interpolation]
    assert largest(resize(x, draw(4)), TF.resize(x, [32, 32], mode, antialias=True).clamp(0, 1)) == 0
    assert largest(both(x, draw(4)), TF.center_crop(TF.resize(x, 32, mode, antialias=True).clamp(0, 1), 28)) == 0
    tall = x.transpose(2, 3)
    assert largest(both(tall, draw(4)), TF.center_crop(TF.resize(tall, 32, mode, antialias=True).clamp(0, 1), 28)) == 0
    assert torch.equal(registry.build("image/center_crop", 24)(x, draw(4)), TF.center_crop(x, 24))
    assert registry.build("image/resize_center_crop", 224).least == [256, 256]


def test_flip():
    x, d = images(), draw()
    y = registry.build("image/flip", 32)(x, d)
    assert 8 < d.reports["flipped"].sum() < 24
    for row, out, flipped in zip(x, y, d.reports["flipped"], strict=True):
        assert torch.equal(out, TF.hflip(row) if flipped else row)


def by_torchvision(x, order, factors):
    rows = []
    for row, steps, factor in zip(x, order.tolist(), factors.tolist(), strict=True):
        for step in steps:
            row = ADJUST[step](row, factor[step])
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_color_jitter_in_every_order(strength):
    x, d = images(128), draw(128)
    options = {"brightness": 0.8 * strength, "contrast": 0.8 * strength, "saturation": 0.8 * strength,
               "hue": 0.2 * strength}
    op = registry.build({"image/color_jitter": options | {"p": 0.8}}, 32)
    order, factors = op.parameters_of(d)
    wanted = by_torchvision(x, order, factors)
    assert len(set(map(tuple, order.tolist()))) == 24
    assert largest(op(x, d), wanted) < 1e-5
    assert largest(jitter_by_mask(x, order, factors, True, blend), wanted) < 1e-5     # the accelerator's way
    untouched = (factors == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(dim=1)
    assert 10 < untouched.sum() < 45
    assert torch.equal(op(x, d)[untouched], x[untouched])


def test_color_jitter_does_not_write_into_its_input():
    x = images()
    registry.build({"image/color_jitter": {"hue": 0.4, "contrast": 0.4}}, 32)(x, draw())
    assert torch.equal(x, images())


def test_color_jitter_of_one_channel():
    x, d = images(channels=1), draw()
    op = registry.build({"image/color_jitter": {"brightness": 0.4, "contrast": 0.4}}, 32)
    order, factors = op.parameters_of(d)
    kept = [[step for step in steps if step in (BRIGHTNESS, CONTRAST)] for steps in order.tolist()]
    assert largest(op(x, d), by_torchvision(x, torch.tensor(kept), factors)) < 1e-5


@pytest.mark.parametrize("turn", [-0.5, -0.3, -0.01, 0.0, 1 / 6, 0.5])
def test_rotate_hue(turn):
    x = images()
    assert largest(rotate_hue(x, torch.full((32,), turn)), TF.adjust_hue(x, turn)) < 1e-5


def test_grayscale():
    x = images()
    d = draw()
    y, applied = registry.build({"image/grayscale": {"p": 0.4}}, 32)(x, d), d.uniform("apply") < 0.4
    wanted = torch.where(applied.view(-1, 1, 1, 1), TF.rgb_to_grayscale(x, 3), x)
    assert 0 < applied.sum() < 32
    assert largest(y, wanted) < 1e-6


def test_solarize():
    x, d = images(), draw()
    y, applied = registry.build({"image/solarize": {"p": 0.4, "threshold": 0.3}}, 32)(x, d), d.uniform("apply") < 0.4
    assert torch.equal(y, torch.where(applied.view(-1, 1, 1, 1), TF.solarize(x, 0.3), x))


@pytest.mark.parametrize("size, kernel, taps", [(16, "auto", 3), (32, "auto", 3), (96, "auto", 9), (224, "auto", 23),
                                                (32, 7, 7), (32, 1, 1)])
def test_gaussian_blur(size, kernel, taps):
    batch = 8 if size > 32 else 32
    x, d = images(batch, height=size, width=size), draw(batch)
    op = registry.build({"image/gaussian_blur": {"p": 0.5, "kernel": kernel}}, size)
    applied, sigma = d.uniform("apply") < 0.5, 0.1 + 1.9 * d.uniform("sigma")
    wanted = [TF.gaussian_blur(row, [taps, taps], [s]) if blurred else row
              for row, s, blurred in zip(x, sigma.tolist(), applied, strict=True)]
    assert 0 < applied.sum() < batch
    assert largest(op(x, d), torch.stack(wanted)) < 1e-5


def test_blur_of_nobody_returns_the_images():
    x = images()
    assert torch.equal(registry.build({"image/gaussian_blur": {"p": 0.0}}, 32)(x, draw()), x)
