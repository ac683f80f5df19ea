"""Views written for colour, on images of one band, of four and of thirteen."""

import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image import bands
from ssl_zoo.augmentations.image.color import luminance
from ssl_zoo.augmentations.image.views import EvalView, ViewPipeline, ViewSpec
from ssl_zoo.augmentations.rng import Draw, stream_key
from tests.augmentations.test_conf import FILES, NAMES, config_of

CROP = {"image/random_resized_crop": {"scale": [0.2, 1.0]}}
COLOURFUL = [
    CROP, "image/flip", {"image/color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
    {"image/grayscale": {"p": 0.2}}, {"image/gaussian_blur": {"kernel": 5}}, {"image/solarize": {"p": 0.2}},
]  # fmt: skip


def draw(rows=4):
    return Draw(stream_key(0, "train", 0), torch.arange(rows))


EVERY = [
    pytest.param(path, name, id=name, marks=[pytest.mark.slow] * (i % 4 > 0))
    for i, (path, name) in enumerate(zip(FILES, NAMES, strict=True))
]


def photos(rows, channels, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, channels, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize(("path", "name"), EVERY)
def test_every_file_of_views_adapts(path, name, channels):
    size = 32 if path.stem.startswith("small") or name == "gray" else 64
    others = {"data": {"image_size": size, "batch_size": 2}, "global_views": 2, "backbone": {"_target_": "vit"}}
    conf = OmegaConf.create({"augmentation": config_of(path, name), **others}).augmentation
    pipeline, evaluation = ViewPipeline(conf.views, None, channels), EvalView(conf.eval.ops, size, None, channels)
    if size == 64 and channels != 13:
        return  # built; looked at with thirteen
    views, _ = pipeline(photos(2, channels, size), draw(2))
    behind = views[0].shape[-3]
    assert behind in (channels, 2) and all(bool(view.isfinite().all()) for view in views)  # 2: of a Sobel filter
    assert evaluation(photos(2, channels, size)).shape == (2, behind, size, size)


def test_colour_stays_as_it_is():
    spec = ViewSpec(COLOURFUL, 32, tie={"image/flip": 0})
    assert bands.adapted([spec], 3) == ([spec], [])


def test_what_has_no_meaning_without_colour_falls_away_and_is_told():
    extra = [
        {"image/random_erasing": {"value": [0.4, 0.5, 0.6]}}, {"image/noisy_rand_augment": {"fill": [0.1, 0.2, 0.3]}},
        {"image/lab": {}},
    ]  # fmt: skip
    spec = ViewSpec([*COLOURFUL, *extra], 32, tie={"image/grayscale": 0, "image/flip": 0})
    (found,), changes = bands.adapted([spec], 4)
    names = [registry.parse(entry)[0] for entry in found.ops]
    assert names == [
        "image/random_resized_crop", "image/flip", "image/color_jitter", "image/gaussian_blur", "image/solarize",
        "image/random_erasing", "image/noisy_rand_augment",
    ]  # fmt: skip
    assert found.ops[2] == {"image/color_jitter": {"brightness": 0.4, "contrast": 0.4}}
    assert found.tie == {"image/flip": 0}
    assert found.ops[5]["image/random_erasing"]["value"] == pytest.approx(0.5)
    (line,) = bands.told(changes, 4)
    assert line == (
        "views for 4 bands instead of colour: image/color_jitter goes without saturation and hue, image/grayscale "
        "falls away, value of image/random_erasing is the mean of three, fill of image/noisy_rand_augment is the mean "
        "of three, image/noisy_rand_augment goes without its colour step, image/lab falls away"
    )
    assert bands.told([], 4) == [] and bands.told(["x"], 1) == ["views for one band instead of colour: x"]


def test_brightness_and_contrast_work_on_all_bands_alike():
    x = photos(4, 5).float() / 255
    op = registry.build({"image/color_jitter": {"brightness": [0.5, 0.5], "contrast": [1.0, 1.0]}}, 32)
    torch.testing.assert_close(op(x, draw()), 0.5 * x)
    op = registry.build({"image/color_jitter": {"brightness": [1.0, 1.0], "contrast": [0.5, 0.5]}}, 32)
    torch.testing.assert_close(op(x, draw()), 0.5 * x + 0.5 * x.mean((1, 2, 3), keepdim=True))
    assert torch.equal(luminance(x), x.mean(1, keepdim=True))


def test_the_colour_step_of_rand_augment_leaves_other_bands_alone():
    from ssl_zoo.augmentations.image.rand_augment import COLOR, apply_step

    x, op = photos(4, 5).float() / 255, torch.full((4,), COLOR)
    assert torch.equal(apply_step(x, op, torch.full((4,), 0.1)), x)
    assert not torch.equal(apply_step(x[:, :3], op, torch.full((4,), 0.1)), x[:, :3])


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_views_of_deep_images_are_those_of_the_same_floats(dtype):
    white = 4095
    stored = torch.randint(0, white + 1, (4, 2, 40, 40), generator=torch.Generator().manual_seed(1))
    images = stored.to(torch.uint16) if dtype == torch.uint16 else stored.float() / white
    for interpolation in ("bilinear", "bicubic"):
        crop = {"image/random_resized_crop": {"scale": [0.2, 1.0], "interpolation": interpolation}}
        pipeline = ViewPipeline([{"ops": [crop], "size": 32}], None, 2, white)
        (batched,), _ = pipeline(images, draw())
        (floats,), _ = pipeline(stored.float() / white, draw())
        assert torch.equal(batched, floats) and batched.unique().numel() > 5000  # far more than 8 bits
        one = torch.stack([pipeline.full(image, Draw(stream_key(0, "train", 0), torch.tensor([i])))[0]
                           for i, image in enumerate(images)])  # fmt: skip
        assert one.dtype == torch.float32 and (one - batched).abs().max() < 1.5 / white
        view = EvalView([{"image/resize": {"interpolation": interpolation}}], 24, None, 2, white)
        assert (torch.stack([view.one(image) for image in images]) - view(images)).abs().max() < 1.5 / white


def test_operations_on_tiles_lose_colour_too():
    each = ["image/grayscale", {"image/color_jitter": {"brightness": 0.4, "hue": 0.1}}]
    spec = ViewSpec([CROP, {"image/jigsaw": {"each": each}}], 8)
    (found,), changes = bands.adapted([spec], 1)
    assert found.ops[1] == {"image/jigsaw": {"each": [{"image/color_jitter": {"brightness": 0.4}}]}}
    assert changes == ["image/grayscale falls away", "image/color_jitter goes without hue"]
    assert each[1]["image/color_jitter"]["hue"] == 0.1
