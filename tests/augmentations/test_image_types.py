"""Every registered image operation: precisions, devices, what it leaves alone; and crops to several sizes."""

import pytest
import torch
import torchvision.transforms.functional as TF

from ssl_zoo.augmentations.image.views import ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.augmentations.image_cases import NAMES, build, draw, images, largest

# The power of two that no result exceeds, where it is not 1: the error of a rounding grows with the number.
LIMIT = {"image/sobel": 4.0, "image/ydbdr": 2.0, "image/random_erasing": 8.0, "image/standardise": 4.0,
         "image/drop_colours": 4.0, "image/drop_green_magenta": 2.0}


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_comes_back_as_bfloat16_within_one_rounding(name):
    # 8 bits of mantissa: half a grey level for pixels, of the given limit for the others.
    x = images(64).bfloat16()
    y, wanted = build(name)(x, draw(64)), build(name)(x.float(), draw(64))
    assert y.dtype == torch.bfloat16 and y.shape == wanted.shape
    assert largest(y, wanted) <= 2**-9 * LIMIT.get(name, 1.0)
    assert wanted.abs().max() <= LIMIT.get(name, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_float64_stays_float64(name):
    # The grid of 8 bits: no threshold or rounding lies between two precisions.
    x = (images(64).double() * 255).round() / 255
    y, wanted = build(name)(x, draw(64)), build(name)(x.float(), draw(64))
    assert y.dtype == torch.float64
    assert ((y - wanted).abs() > 1e-5).double().mean() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_read_on_the_host_and_the_input_is_left_alone(name):
    # Tensors of the meta device have no values, so that anything that reads one on the host raises.
    y = build(name)(images(4).to("meta"), Draw(stream_key(0, "test", 0), torch.arange(4, device="meta")))
    x = images()
    out = build(name)(x, draw())
    assert y.device.type == "meta" and y.shape[1:] == out.shape[1:]
    assert torch.equal(x, images())


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch(name):
    rows = torch.tensor([19, 3, 11])
    part = build(name)(images()[rows], Draw(stream_key(0, "test", 0), rows))
    assert largest(part, build(name)(images(), draw())[rows]) < 1e-5


def test_crops_of_one_batch_to_several_sizes_are_the_single_crops():
    crop = {"image/random_resized_crop": {"scale": [0.2, 1.0], "interpolation": "bicubic"}}
    small = {"image/random_resized_crop": {"scale": [0.05, 0.2]}}
    spec = [{"ops": [crop], "size": 40, "count": 2}, {"ops": [small], "size": 20, "count": 3, "kind": "local"},
            {"ops": [small], "size": 40, "fraction": 0.3, "kind": "local"}]
    x = (images(16, height=56, width=48) * 255).round() / 255
    views, reports = ViewPipeline(spec, None)(x, draw(16))
    assert [view.shape[-1] for view in views] == [40, 40, 20, 20, 20, 12]
    for position, view in enumerate(views):
        mode = TF.InterpolationMode.BICUBIC if position < 2 else TF.InterpolationMode.BILINEAR
        boxes = reports[f"{position}/image/random_resized_crop/box"].tolist()
        side = [view.shape[-1]] * 2
        single = [TF.resized_crop(row, *box, side, mode, antialias=True) for row, box in zip(x, boxes, strict=True)]
        assert largest(view, torch.stack(single).clamp(0, 1)) < 1e-5
