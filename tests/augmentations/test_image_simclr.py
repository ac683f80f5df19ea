"""SimCLR's own crop and blur: boxes of TensorFlow's rule written out, and what a batch has in common."""

import pytest
import torch

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.rng import Draw, Rows, stream_key
from tests.augmentations.image_cases import draw, images, largest

BATCH = 4


def box_of(numbers, place, height, width, scale=(0.08, 1.0), ratios=(3 / 4, 4 / 3)):
    """The C++ of tf.image.sample_distorted_bounding_box for one image, whose object is the image."""
    for first, second in numbers:
        ratio = ratios[0] + (ratios[1] - ratios[0]) * first
        least, most = (share * height * width for share in scale)
        h, top = round((least / ratio) ** 0.5), round((most / ratio) ** 0.5)
        if round(top * ratio) > width:
            top = int((width + 0.5) / ratio)
            top -= round(top * ratio) > width
        top = min(top, height)
        h = top if h >= top else h + int(second * (top - h + 1))
        h += h * round(h * ratio) < least
        h -= h * round(h * ratio) > most
        w = round(h * ratio)
        if max(least, 0.1 * height * width) <= h * w <= most and w <= width and h <= height:
            return [int(place[0] * (height - h)), int(place[1] * (width - w)), h, w]
    return [0, 0, height, width]


@pytest.mark.parametrize("shape", [(32, 32), (20, 90), (90, 31), (4, 90)])
def test_boxes_are_those_of_tensorflow(shape):
    op, d = registry.build({"image/random_resized_crop": {"misfit": "bounded"}}, 16), draw(500)
    numbers, places = d.uniform("box", 10, 2).double().tolist(), d.uniform("place", 2).double().tolist()
    boxes = op.boxes(d, *shape)
    assert boxes.tolist() == [box_of(*row, *shape) for row in zip(numbers, places, strict=True)]
    assert (boxes[:, 2:].prod(1) >= 0.1 * shape[0] * shape[1]).all()


def test_boxes_of_tensorflow_are_smaller_than_torchvisions():
    share = {}
    for misfit in ("redraw", "bounded"):
        op = registry.build({"image/random_resized_crop": {"misfit": misfit}}, 16)
        share[misfit] = float((op.boxes(draw(4000), 500, 500)[:, 2:].prod(1) / 500**2).mean())
    assert share == pytest.approx({"redraw": 0.50, "bounded": 0.43}, abs=0.03)


def blur(p=1.0, shared_by=BATCH):
    return registry.build({"image/gaussian_blur": {"p": p, "padding": "zeros", "sigma_shared_by": shared_by}}, 32)


def test_a_batch_has_one_width_and_the_next_another():
    spot = torch.zeros(2 * BATCH, 3, 32, 32)
    spot[..., 16, 16] = 1.0
    peaks = blur()(spot, draw(2 * BATCH))[:, 0, 16, 16]
    assert (peaks == peaks[[0, 0, 0, 0, 4, 4, 4, 4]]).all() and peaks[0] != peaks[4]


def test_each_image_of_a_batch_has_a_coin_of_its_own():
    x, d = images(64), draw(64)
    changed = (blur(p=0.5, shared_by=64)(x, d) != x).flatten(1).any(1)
    assert torch.equal(changed, d.uniform("apply") < 0.5) and 16 < changed.sum() < 48


def test_the_width_does_not_depend_on_who_blurs():
    """Half of a batch on another process, and one image in a worker."""
    x, op = images(2 * BATCH), blur(p=0.5)
    whole, key = op(x, draw(2 * BATCH)), stream_key(0, "test", 0)
    slots = torch.arange(2 * BATCH)
    halves = [op(x[part], Draw(key, slots[part])) for part in (slice(0, 2), slice(2, 8))]
    rows = Rows(Draw(key, slots))
    single = [op(x[i : i + 1], rows.row(i)) for i in slots.tolist()]
    assert torch.equal(torch.cat(halves), whole) and largest(torch.cat(single), whole) < 1e-6


def test_a_width_is_shared_by_one_sample_at_least():
    with pytest.raises(ValueError, match="sigma_shared_by is 0, it must be a number of samples, at least 1"):
        blur(shared_by=0)
