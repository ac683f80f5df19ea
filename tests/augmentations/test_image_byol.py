"""BYOL's own crop, colour jitter and blur, each against its rule written out for single images."""

import colorsys
import math

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image import color_hsv
from ssl_zoo.augmentations.image.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, jitter_by_mask
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.augmentations.image_cases import draw, images, largest

CROP = {"image/random_resized_crop": {"interpolation": "bicubic", "antialias": False, "misfit": "clamp"}}


@pytest.mark.parametrize("shape", [(32, 32), (20, 90)])
def test_a_box_that_does_not_fit_is_cut_to_the_image(shape):
    op, d = registry.build(CROP, 16), draw(500)
    shares, places = d.uniform("box", 1, 2)[:, 0].double().tolist(), d.uniform("place", 2).double().tolist()
    wanted = []
    for (share, shape_number), (down, across) in zip(shares, places, strict=True):
        area = shape[0] * shape[1] * (0.08 + 0.92 * share)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * shape_number)
        h, w = min(round(math.sqrt(area / ratio)), shape[0]), min(round(math.sqrt(area * ratio)), shape[1])
        wanted.append([math.floor(down * (shape[0] - h + 1)), math.floor(across * (shape[1] - w + 1)), h, w])
    boxes = op.boxes(d, *shape)
    assert boxes.tolist() == wanted
    assert (boxes[:, 2] == shape[0]).float().mean() > 0.05  # a box of torchvision's rule seldom is as high as the image


def keys(distance):
    distance = abs(distance)
    if distance < 1:
        return 1.5 * distance**3 - 2.5 * distance**2 + 1
    return -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2 if distance < 2 else 0.0


def test_bicubic_without_antialiasing_is_the_cubic_of_keys_on_four_pixels():
    row = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    wanted = []
    for i in range(7):
        centre = (i + 0.5) * 30 / 7 - 0.5
        weights = [keys(j - centre) for j in range(30)]
        wanted.append(sum(w * x for w, x in zip(weights, row, strict=True)) / sum(weights))
    x = torch.tensor(row).expand(1, 1, 30, 30)
    whole = {"scale": [1, 1], "ratio": [1, 1], "interpolation": "bicubic", "antialias": False}
    y = registry.build({"image/random_resized_crop": whole}, 7)(x, draw(1))
    assert largest(y[0, 0, 3], torch.tensor(wanted).clamp(0, 1)) < 1e-5


def test_bilinear_without_antialiasing_is_torchs():
    op = registry.build({"image/random_resized_crop": {"antialias": False}}, 9)
    x, d = images(16, height=48, width=40), draw(16)
    y = op(x, d)
    wanted = [F.interpolate(row[None, :, top:top + h, left:left + w], size=(9, 9), mode="bilinear")
              for row, (top, left, h, w) in zip(x, d.reports["box"].tolist(), strict=True)]
    assert largest(y, torch.cat(wanted)) < 1e-5


def test_a_worker_crops_as_the_batch_does():
    op = registry.build(CROP, 32)
    x = (images(16, height=60, width=47) * 255).round().to(torch.uint8)
    single = [op(x[i:i + 1], Draw(stream_key(0, "test", 0), torch.tensor([i]))) for i in range(16)]
    assert single[0].dtype == torch.uint8
    assert largest(torch.cat(single).float() / 255, op(x.float() / 255, draw(16))) <= 2 / 255


def adjusted(pixels, step, number):
    """``[C][H * W]`` lists of channels after one adjustment of BYOL's."""
    def cut(x):
        return min(max(x, 0.0), 1.0)

    if step == BRIGHTNESS:
        return [[cut(x + number) for x in channel] for channel in pixels]
    if step == CONTRAST:
        means = [sum(channel) / len(channel) for channel in pixels]
        return [[cut(m + number * (x - m)) for x in channel] for channel, m in zip(pixels, means, strict=True)]
    hsv = [colorsys.rgb_to_hsv(*rgb) for rgb in zip(*pixels, strict=True)]
    if step == SATURATION:
        hsv = [(h, cut(s * number), v) for h, s, v in hsv]
    else:
        hsv = [((h + number) % 1.0, s, v) for h, s, v in hsv]
    return [list(channel) for channel in zip(*(colorsys.hsv_to_rgb(*x) for x in hsv), strict=True)]


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_jitter_in_every_order(strength):
    options = {"brightness": 0.6, "contrast": 0.6, "saturation": 0.9, "hue": 0.3}
    op = registry.build({"image/color_jitter_hsv": {k: v * strength for k, v in options.items()} | {"p": 0.8}}, 8)
    x, d = images(100, height=8, width=8), draw(100)
    order, numbers = op.parameters_of(d)
    wanted = []
    for row, steps, own in zip(x, order.tolist(), numbers.tolist(), strict=True):
        pixels = row.flatten(1).tolist()
        for step in steps:
            pixels = adjusted(pixels, step, own[step])
        wanted.append(torch.tensor(pixels).view(3, 8, 8))
    assert largest(op(x, d), torch.stack(wanted)) < 1e-5
    assert largest(jitter_by_mask(x, order, numbers, True, color_hsv.mix), torch.stack(wanted)) < 1e-5
    untouched = (numbers == torch.tensor(op.neutral)).all(dim=1)
    assert 5 < untouched.sum() < 35 and torch.equal(op(x, d)[untouched], x[untouched])
    assert torch.equal(x, images(100, height=8, width=8))


def test_what_is_added_to_the_brightness_lies_on_both_sides_of_zero():
    op = registry.build({"image/color_jitter_hsv": {"brightness": 0.4, "contrast": 0.4, "hue": 0.1}}, 8)
    numbers = op.parameters_of(draw(4000))[1]
    for i, (low, high) in {BRIGHTNESS: (-0.4, 0.4), CONTRAST: (0.6, 1.4), SATURATION: (1, 1), HUE: (-0.1, 0.1)}.items():
        found = [numbers[:, i].min(), numbers[:, i].mean(), numbers[:, i].max()]
        assert [float(x) for x in found] == pytest.approx([low, (low + high) / 2, high], abs=0.01)


@pytest.mark.parametrize("size", [20, 70])
def test_a_blur_with_zeros_around_darkens_the_border(size):
    x, d = images(6, height=size, width=size), draw(6)
    op = registry.build({"image/gaussian_blur": {"p": 1.0, "kernel": 9, "padding": "zeros"}}, size)
    rows = []
    for row, weights in zip(x, op.kernels(d.uniform("sigma")), strict=True):
        kernel = torch.outer(weights, weights).expand(3, 1, 9, 9)
        rows.append(F.conv2d(row[None], kernel, padding=4, groups=3))
    assert largest(op(x, d), torch.cat(rows)) < 1e-5


@pytest.mark.parametrize(("entry", "message"), [
    ({"image/random_resized_crop": {"misfit": "cut"}}, "misfit=cut: there are: bounded, clamp, redraw"),
    ({"image/gaussian_blur": {"padding": "same"}}, "padding=same: there are: reflect, zeros"),
    ({"image/color_jitter_hsv": {"brightness": 1.2}}, r"brightness is \[-1.2, 1.2\], it must be \[low, high\]"),
])
def test_other_words_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        registry.build(entry, 32)
