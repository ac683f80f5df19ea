"""Names and options of operations: found, or refused with the nearest right name."""

import pytest
from torch import nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.geometry import Flip
from ssl_zoo.errors import ConfigError

NAMES = ["center_crop", "color_jitter", "flip", "gaussian_blur", "grayscale", "random_crop_pad", "random_resized_crop",
         "resize", "resize_center_crop", "solarize"]


def test_all_image_operations_are_there():
    assert {f"image/{name}" for name in NAMES} <= set(registry.names())
    assert registry.get("image/flip") is Flip


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(ConfigError, match="no augmentation is called 'image/flips': did you mean 'image/flip'?"):
        registry.get("image/flips")


def test_a_second_operation_of_a_name_is_an_error():
    with pytest.raises(ValueError, match="augmentation 'image/flip' exists already: .*geometry.Flip"):
        registry.register("image/flip")(nn.Identity)
    assert registry.register("image/flip")(Flip) is Flip      # the same module imported again


@pytest.mark.parametrize("entry, message", [
    ({"image/flipp": {}}, "no augmentation is called 'image/flipp': did you mean 'image/flip'?"),
    ({"image/flip": {"prob": 0.5}}, "image/flip has no option 'prob': "),
    ({"image/color_jitter": {"brightnes": 0.4}},
     "image/color_jitter has no option 'brightnes': did you mean 'brightness'?"),
    ({"image/flip": {"p": 1.5}}, "image/flip: p is 1.5, it must lie in [0, 1]"),
    ({"image/random_resized_crop": {"scale": [0.5, 0.1]}},
     "image/random_resized_crop: scale is [0.5, 0.1], it must be [low, high] with 0 <= low <= high <= inf"),
    ({"image/random_resized_crop": {"interpolation": "nearest"}},
     "image/random_resized_crop: interpolation=nearest: there are: bicubic, bilinear"),
    ({"image/color_jitter": {"hue": 0.6}},
     "image/color_jitter: hue is [-0.6, 0.6], it must be [low, high] with -0.5 <= low <= high <= 0.5"),
    ({"image/gaussian_blur": {"kernel": 4}},
     "image/gaussian_blur: kernel is 4, it must be auto or an odd number of at most 447 taps for a view of 224"),
    ({"image/solarize": {"threshold": 128}},
     "image/solarize: threshold is 128, it must lie in [0, 1]: pixels are floats"),
    ({"image/random_crop_pad": {"padding": 1.5}}, "image/random_crop_pad: padding is 1.5, wanted a whole number"),
    ({"image/gaussian_noise": {"clamp": -1}}, "image/gaussian_noise: clamp is -1, wanted true or false"),
    ({"image/cutout": {"side": 4, "value": None}},
     "image/cutout: value is None, wanted a number or a list, each a number"),
    ({"image/flip": {}, "image/resize": {}}, "an augmentation is written {modality/op: {option: value}}, got"),
])
def test_check_says_what_is_wrong(entry, message):
    assert [text for text in registry.check([entry])][0].startswith(message)


def test_check_tells_all_problems_at_once_and_none_of_a_right_list():
    assert len(registry.check([{"image/flipp": {}}, "image/flip", {"image/flip": {"q": 1, "r": 2}}])) == 3
    right = ["image/flip", {"image/grayscale": None}, {"image/random_resized_crop": {"scale": [0.2, 1]}}]
    assert registry.check(right) == []


def test_size_comes_from_the_view_unless_given():
    assert registry.build("image/resize", size=32).size == (32, 32)
    assert registry.build({"image/resize": {"size": 40}}, size=32).size == (40, 40)
    assert registry.build("image/resize", size=(32, 16)).size == (32, 16)


def test_operations_that_make_squares_say_so_for_another_view():
    words = r"image/jigsaw makes squares and the view is to be \[32, 16\]; these .*: image/center_crop, "
    with pytest.raises(ConfigError, match=words):
        registry.build("image/jigsaw", size=[32, 16])
    assert registry.build({"image/jigsaw": {"size": 8}}, size=[32, 16]).size == 8
