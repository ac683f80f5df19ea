"""Lab and YDbDr against known colours and the formulas written out in float64."""

import pytest
import torch

from ssl_zoo import config
from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.colorspace import Lab, rgb_to_lab, rgb_to_ydbdr
from ssl_zoo.augmentations.image.views import ImageAugmentation
from tests.augmentations.image_cases import build, draw, eight_bit, images, largest

# Published values for D65 and the 2 degree observer.
LAB = {(1, 1, 1): (100.0, 0.0, 0.0), (0, 0, 0): (0.0, 0.0, 0.0), (1, 0, 0): (53.2408, 80.0925, 67.2032),
       (0, 1, 0): (87.7347, -86.1827, 83.1793), (0, 0, 1): (32.2970, 79.1875, -107.8602),
       (1, 1, 0): (97.1393, -21.5537, 94.4780), (0, 1, 1): (91.1132, -48.0875, -14.1312)}
YDBDR = {(1, 1, 1): (1.0, 0.0, 0.0), (1, 0, 0): (0.299, -0.45, -1.333), (0, 0, 1): (0.114, 1.333, 0.217)}


def colour(rgb):
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)


@pytest.mark.parametrize("rgb", LAB)
def test_lab_of_known_colours(rgb):
    assert largest(rgb_to_lab(colour(rgb)).flatten(), torch.tensor(LAB[rgb])) < 1.1e-2


def test_lab_of_red_and_white_to_four_digits():
    assert largest(rgb_to_lab(colour((1, 0, 0))).flatten(), torch.tensor(LAB[1, 0, 0])) < 1e-3
    assert largest(rgb_to_lab(colour((1, 1, 1))).flatten(), torch.tensor(LAB[1, 1, 1])) < 6e-3   # D65 of 5 digits


def lab_by_hand(r, g, b):
    def linear(v):
        return ((v + 0.055) / 1.055)**2.4 if v > 0.04045 else v / 12.92

    def f(t):
        return t**(1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116

    r, g, b = linear(r), linear(g), linear(b)
    x = (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883
    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


def test_lab_is_the_formula_in_float64():
    x = eight_bit(4, height=8, width=8)
    x[0] *= 0.05                                                 # the straight parts of both curves
    pixels = x.double().permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    wanted = torch.tensor([lab_by_hand(*pixel) for pixel in pixels], dtype=torch.float64)
    wanted = wanted.view(4, 8, 8, 3).permute(0, 3, 1, 2)
    assert largest(rgb_to_lab(x.double()), wanted) < 1e-11
    assert largest(rgb_to_lab(x), wanted) < 5e-4                 # of 100, in float32


@pytest.mark.parametrize("rgb", YDBDR)
def test_ydbdr_of_known_colours(rgb):
    assert largest(rgb_to_ydbdr(colour(rgb)).flatten(), torch.tensor(YDBDR[rgb])) < 1e-6


def test_scaled_lab_fills_the_unit_range():
    # CMC's centres and half ranges: 50, 6.025, -6.6895; 50, 92.208, 101.1675.
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).view(8, 3, 1, 1)
    y = build("image/lab")(corners, draw(8))
    assert largest(y.amax(dim=(0, 2, 3)), torch.ones(3)) < 2e-3
    assert largest(y.amin(dim=(0, 2, 3)), -torch.ones(3)) < 2e-3
    plain = build("image/lab", scaled=False)(corners, draw(8))
    assert largest(plain, y * torch.tensor([50, 92.208, 101.1675]).view(3, 1, 1)
                   + torch.tensor([50, 6.025, -6.6895]).view(3, 1, 1)) < 1e-4


def test_scaled_ydbdr():
    x = images()
    y = build("image/ydbdr")(x, draw())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.457, -0.082, -0.052), (0.5, 1.331, 1.333)))
    assert largest(y, (build("image/ydbdr", scaled=False)(x, draw()) - mean) / std) < 1e-6


@pytest.mark.parametrize("name", ["image/lab", "image/ydbdr"])
def test_luminance_and_colour_can_be_had_apart(name):
    x = images()
    both = build(name)(x, draw())
    assert torch.equal(build(name, keep=[0])(x, draw()), both[:, :1])
    assert torch.equal(build(name, keep=[1, 2])(x, draw()), both[:, 1:])
    (problem,) = registry.check([{name: {"keep": [3]}}])
    assert problem == f"{name}: keep is [3], it must be some of the channels 0, 1, 2"


@pytest.mark.parametrize(("method", "kept"), [("colorization", [0]), ("cmc", None), ("simclr", "none")])
def test_a_network_is_fine_tuned_on_the_channels_that_it_was_trained_on(method, kept):
    ops = [{"image/random_resized_crop": {}}, {"image/flip": {}}]
    cfg = config.plain(config.load([f"method={method}", "data=synthetic"]))
    found = ImageAugmentation.finetuning_view(cfg, ops)["ops"]
    made = [entry["image/lab"].get("keep") for entry in found[2:]]
    assert found[:2] == ops and made == ([] if kept == "none" else [kept])


def test_the_scale_of_lab_may_be_anothers():
    x = torch.rand(2, 3, 4, 4)
    plain, scaled = Lab(scaled=False)(x, None), Lab(centre=[50, 0, 0], half_range=[100, 110, 110], keep=[0, 2])(x, None)
    wanted = torch.stack([(plain[:, 0] - 50) / 100, plain[:, 2] / 110], 1)
    torch.testing.assert_close(scaled, wanted)
    with pytest.raises(ValueError, match=r"half_range is \[1, 0, 1\], it must be above 0"):
        Lab(half_range=[1, 0, 1])
