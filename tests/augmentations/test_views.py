"""Lists of views: counts, order, ties, errors; and that a view does not depend on where or with whom it is made."""

import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo.augmentations.image.views import EvalView, ViewPipeline
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import ConfigError

CROP = {"image/random_resized_crop": {"scale": [0.2, 1.0], "interpolation": "bicubic"}}
JITTER = {"image/color_jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8}}
OPS = [CROP, "image/flip", JITTER, {"image/grayscale": {"p": 0.2}}, {"image/gaussian_blur": {"kernel": 5}},
       {"image/solarize": {"p": 0.2}}]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def photos(batch=256, channels=3, height=32, width=32):
    return torch.randint(0, 256, (batch, channels, height, width), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def draw(slots=256):
    return Draw(stream_key(0, "train", 0), torch.arange(slots) if isinstance(slots, int) else slots)


def largest(a, b):
    return (a - b).abs().max().item()


def test_global_views_come_first_and_counts_are_expanded():
    spec = [{"ops": OPS, "size": 32, "count": 3, "kind": "local", "fraction": 0.75},
            {"ops": OPS, "size": 32, "count": 2}]
    pipeline = ViewPipeline(spec, IMAGENET)
    views, _ = pipeline(photos(4), draw(4))
    assert pipeline.counts == (2, 3) and pipeline.sizes == [32, 32, 24, 24, 24]
    assert [tuple(view.shape) for view in views] == [(4, 3, size, size) for size in pipeline.sizes]
    assert all(view.dtype == torch.float32 for view in views)


def test_views_of_one_entry_have_independent_draws():
    a, b = ViewPipeline([{"ops": OPS, "size": 32, "count": 2}], None)(photos(64), draw(64))[0]
    boxes = ViewPipeline([{"ops": [CROP], "size": 32, "count": 2}], None)(photos(), draw())[1]
    assert largest(a, b) > 0.1
    corners = torch.stack([boxes[f"{view}/image/random_resized_crop/box"][:, 0].double() for view in (0, 1)])
    assert abs(torch.corrcoef(corners)[0, 1]) < 0.25


@pytest.fixture(scope="module")
def whole():
    return ViewPipeline([{"ops": OPS, "size": 32, "count": 2}], IMAGENET)(photos(), draw())[0]


def test_a_batch_of_32_is_the_same_as_a_part_of_256(whole):
    pipeline = ViewPipeline([{"ops": OPS, "size": 32, "count": 2}], IMAGENET)
    for start in range(0, 256, 32):
        part, _ = pipeline(photos()[start:start + 32], draw(torch.arange(start, start + 32)))
        assert max(largest(x, y[start:start + 32]) for x, y in zip(part, whole, strict=True)) < 1e-5


def test_the_order_of_a_batch_does_not_matter(whole):
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    mixed, _ = ViewPipeline([{"ops": OPS, "size": 32, "count": 2}], IMAGENET)(photos()[order], draw(order))
    assert max(largest(x, y[order]) for x, y in zip(mixed, whole, strict=True)) < 1e-5


def test_an_image_leaves_no_trace_in_the_input():
    images = torch.rand(8, 3, 32, 32)
    before = images.clone()
    ViewPipeline([{"ops": OPS[1:], "size": 32}], IMAGENET)(images, draw(8))
    assert torch.equal(images, before)


def test_crops_of_a_worker_agree_with_the_batch_to_two_grey_values():
    pipeline = ViewPipeline([{"ops": [CROP, "image/flip"], "size": 24, "count": 2}], None)
    images = photos(16, height=40, width=56)
    batch, _ = pipeline(images, draw(16))
    crops = [pipeline.crop(image, draw(torch.tensor([i]))) for i, image in enumerate(images)]
    assert all(crop.dtype == torch.uint8 and crop.shape == (3, 24, 24) for row in crops for crop in row)
    finished, _ = pipeline([torch.stack(view) for view in zip(*crops, strict=True)], draw(16))
    assert max(largest(x, y) for x, y in zip(finished, batch, strict=True)) <= 2 / 255 + 1e-6


def test_a_view_made_in_a_worker_is_the_view_of_its_crop():
    pipeline = ViewPipeline([{"ops": OPS, "size": 24, "count": 2}], IMAGENET)
    images = photos(8, height=40, width=56)
    crops = [pipeline.crop(image, draw(torch.tensor([i]))) for i, image in enumerate(images)]
    batch, _ = pipeline([torch.stack(view) for view in zip(*crops, strict=True)], draw(8))
    for i, image in enumerate(images):
        for view, wanted in zip(pipeline.full(image, draw(torch.tensor([i]))), batch, strict=True):
            assert largest(view, wanted[i]) < 1e-5


def test_normalisation_is_last_and_is_torchvisions():
    x, _ = ViewPipeline([{"ops": ["image/resize"], "size": 32}], IMAGENET)(photos(4), draw(4))
    mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert largest(x[0], (photos(4).float() / 255 - mean) / std) < 1e-6


def test_reports_name_the_view_and_the_operation():
    _, reports = ViewPipeline([{"ops": [CROP, "image/flip"], "size": 32, "count": 2}], None)(photos(4), draw(4))
    assert sorted(reports) == ["0/image/flip/flipped", "0/image/random_resized_crop/box", "1/image/flip/flipped",
                               "1/image/random_resized_crop/box"]


def test_a_tied_operation_takes_the_draws_of_the_other_view():
    spec = [{"ops": [CROP, "image/flip", JITTER], "size": 32},
            {"ops": ["image/flip", CROP, JITTER], "size": 32, "tie": {"image/flip": 0, "image/random_resized_crop": 0}}]
    _, reports = ViewPipeline(spec, None)(photos(64), draw(64))
    assert torch.equal(reports["0/image/flip/flipped"], reports["1/image/flip/flipped"])
    assert torch.equal(reports["0/image/random_resized_crop/box"], reports["1/image/random_resized_crop/box"])


def test_one_channel_works_without_colour_and_colour_falls_away():
    gray = [CROP, {"image/color_jitter": {"brightness": 0.4, "contrast": 0.4}}, "image/gaussian_blur", "image/solarize"]
    views, _ = ViewPipeline([{"ops": gray, "size": 32}], {"mean": [0.5], "std": [0.5]}, 1)(photos(4, 1), draw(4))
    assert views[0].shape == (4, 1, 32, 32) and views[0].min() >= -1 and views[0].max() <= 1
    for channels in (1, 4, 13):
        pipeline = ViewPipeline([{"ops": OPS, "size": 32}], None, channels)
        views, _ = pipeline(photos(4, channels), draw(4))
        assert views[0].shape == (4, channels, 32, 32)
        assert pipeline.changes == ["image/color_jitter goes without saturation and hue", "image/grayscale falls away"]


@pytest.mark.parametrize("views, normalize, message", [
    ([], None, "augmentation.views is empty"),
    ([{"ops": [], "size": 32, "cuont": 2}], None, "a view has no key 'cuont': did you mean 'count'?"),
    ([{"ops": []}], None, "a view needs 'size'"),
    ([{"ops": [], "size": 32, "kind": "lokal"}], None, "kind=lokal: did you mean 'local'"),
    ([{"ops": [], "size": 32, "count": 0}], None, "count is 0, it must be a whole number of at least 1"),
    ([{"ops": [{"image/flp": {}}], "size": 32}], None,
     "no augmentation is called 'image/flp': did you mean 'image/flip'?"),
    ([{"ops": ["image/flip"], "size": 32, "tie": {"image/flip": 3}}], None,
     "tie: there is no 'image/flip' in view 3, of 1 views counted from 0"),
    ([{"ops": [], "size": 32, "tie": {"image/flip": 0}}], None, "tie: this view has no operation 'image/flip'"),
    ([{"ops": [], "size": 32}], {"mean": [0.5, 0.5], "std": [0.5, 0.5]},
     "it wants 1 or 3 of each for 3-channel images"),
])
def test_a_wrong_specification_says_what_is_wrong(views, normalize, message):
    with pytest.raises(ConfigError) as error:
        ViewPipeline(views, normalize)
    assert message in str(error.value)


def test_a_view_of_the_wrong_size_offers_the_cure():
    with pytest.raises(ValueError, match="a view is 28x28, its size is 32; begin its ops with image/resize or"):
        ViewPipeline([{"ops": ["image/flip"], "size": 32}], None)(photos(2, height=28, width=28), draw(2))


def test_a_list_of_images_needs_one_for_each_view():
    with pytest.raises(ValueError, match="got images for 1 views, the pipeline makes 2"):
        ViewPipeline([{"ops": OPS, "size": 32, "count": 2}], None)([photos(2)], draw(2))


def test_specifications_of_a_configuration_library_work():
    spec = OmegaConf.create({"views": [{"ops": OPS, "size": 32, "tie": {"image/flip": 0}}], "normalize": IMAGENET})
    plain = ViewPipeline([{"ops": OPS, "size": 32}], IMAGENET)
    views, _ = ViewPipeline(spec.views, spec.normalize)(photos(4), draw(4))
    assert torch.equal(views[0], plain(photos(4), draw(4))[0][0])


def test_an_accelerator_is_never_waited_for():
    # Tensors of the meta device have no values, so that anything that reads one on the host raises.
    spec = [{"ops": OPS, "size": 32}, {"ops": ["image/resize", "image/random_crop_pad"], "size": 32}]
    images, slots = photos(4, height=40).float().to("meta"), torch.arange(4, device="meta")
    for view in ViewPipeline(spec, None).views:
        x = view(images, Draw(stream_key(0, "train", 0), slots))
        assert x.shape == (4, 3, 32, 32) and x.device.type == "meta"


def test_autocast_does_not_touch_pixels():
    pipeline = ViewPipeline([{"ops": OPS, "size": 32}], None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views, _ = pipeline(photos(4), draw(4))
    assert torch.equal(views[0], pipeline(photos(4), draw(4))[0][0])


def test_eval_view_of_one_image_is_the_batch_of_one():
    view = EvalView([{"image/resize_center_crop": {"fraction": 0.875}}], 28, IMAGENET)
    images = photos(6, height=50, width=40)
    batch = view(images)
    assert batch.shape == (6, 3, 28, 28)
    assert torch.equal(batch[2:4], view(images[2:4]))
    assert max(largest(view.one(image), row) for image, row in zip(images, batch, strict=True)) <= 2 / 255 / 0.224


def test_eval_view_says_what_is_wrong():
    with pytest.raises(ConfigError, match="augmentation.eval: no augmentation is called 'image/resiz': did you mean"):
        EvalView(["image/resiz"], 32, None)


def test_an_operation_after_one_that_cuts_tiles_is_refused():
    ops = [{"image/resize": {"size": 24}}, {"image/patch_grid": {"stride": 8}}]
    assert ViewPipeline([{"size": 8, "ops": ops}], None).sizes == [8]
    with pytest.raises(ConfigError, match="view 0: image/patch_grid cuts a view into tiles and must be its last oper"):
        ViewPipeline([{"size": 8, "ops": [*ops, "image/flip"]}], None)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_flip_behind_a_crop_is_done_by_it_bit_for_bit(interpolation):
    ops = [{"image/random_resized_crop": {"interpolation": interpolation}}, {"image/flip": {"p": 0.5}}]
    pipeline = ViewPipeline([{"size": 24, "ops": ops}], None)
    images = torch.randint(0, 256, (32, 3, 40, 30), dtype=torch.uint8)
    draw = Draw(stream_key(0, "train", 0), torch.arange(32))
    (fused,), reports = pipeline(images, draw)
    view = pipeline.views[0]
    crop = view.ops[0](images.float() / 255, view.draw_of(0, draw))
    assert view.fused == [True]
    assert torch.equal(fused, view.ops[1](crop, view.draw_of(1, draw)))
    assert 4 < reports["0/image/flip/flipped"].sum() < 28
