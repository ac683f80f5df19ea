"""RandAugment and its relatives: each operation and magnitude as torchvision applies it, and as it chooses them.

The oracle is torchvision's own code on floats; posterize and equalize, which it has for uint8 only, through uint8.
"""

import math

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image import rand_augment as ours
from ssl_zoo.augmentations.image.rand_augment import apply_step
from tests.augmentations.image_cases import as_uint8, build, draw, eight_bit, images, largest

SPACE = RandAugment()._augmentation_space(31, (32, 32))
OPS = list(SPACE)
MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}
EIGHT_BIT = ("Posterize", "Equalize")


def by_torchvision(row, name, magnitude, interpolation="nearest", fill=None):
    if name in EIGHT_BIT:
        return _apply_op(as_uint8(row), name, magnitude, MODES[interpolation], fill).float() / 255
    magnitude = magnitude / 255 - 1e-7 if name == "Solarize" else magnitude
    return _apply_op(row, name, magnitude, MODES[interpolation], fill)


def in_our_units(name, magnitude):
    """torchvision counts enhancements from 0 and thresholds in 255 steps."""
    offset = 1.0 if name in ("Brightness", "Color", "Contrast", "Sharpness") else 0.0
    return offset + magnitude / (255.0 if name == "Solarize" else 1.0)


def test_the_constants_are_torchvisions_order():
    names = [name.replace("_", "").lower() for name in
             ("IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS COLOR CONTRAST SHARPNESS POSTERIZE "
              "SOLARIZE AUTOCONTRAST EQUALIZE").split()]
    assert names == [name.lower() for name in OPS]
    assert [getattr(ours, name) for name in ("IDENTITY", "ROTATE", "EQUALIZE", "INVERT")] == [0, 5, 13, 14]


@pytest.mark.parametrize("interpolation, fill", [("nearest", None), ("bilinear", [0.5, 0.2, 0.1])])
@pytest.mark.parametrize("name", OPS)
def test_every_operation_at_every_magnitude(name, interpolation, fill):
    x, (magnitudes, signed) = eight_bit(62, height=32, width=28), TrivialAugmentWide()._augmentation_space(31)[name]
    values = (magnitudes if magnitudes.ndim else torch.zeros(31)).double()
    values = torch.cat((values, -values if signed else values)).tolist()
    if name.startswith("Translate"):
        values = [math.trunc(value) for value in values]
    wanted = [by_torchvision(row, name, value, interpolation, fill) for row, value in zip(x, values, strict=True)]
    magnitude = torch.tensor([in_our_units(name, value) for value in values], dtype=torch.float64)
    y = apply_step(x, torch.full((62,), OPS.index(name)), magnitude, interpolation, fill)
    assert largest(y, torch.stack(wanted)) < 1e-5


@pytest.mark.parametrize("magnitude, bins, shape", [(9, 31, (32, 32)), (30, 31, (40, 24)), (0, 31, (8, 8)),
                                                    (5, 11, (96, 96)), (4, 9, (224, 224))])
def test_rand_augment_has_torchvisions_magnitudes(magnitude, bins, shape):
    op, value = build("image/rand_augment", num_ops=3, magnitude=magnitude, num_bins=bins).parameters_of(
        draw(200), *shape)
    space = list(RandAugment()._augmentation_space(bins, shape).items())
    seen = set()
    for index, got in zip(op.flatten().tolist(), value.flatten().tolist(), strict=True):
        name, (magnitudes, signed) = space[index]
        wanted = float(magnitudes[magnitude]) if magnitudes.ndim else None
        if wanted is not None:
            wanted = math.trunc(wanted) if name.startswith("Translate") else wanted
            choices = [in_our_units(name, sign * wanted) for sign in ((1, -1) if signed else (1,))]
            assert min(abs(got - choice) for choice in choices) < 1e-6, name
            seen.add((name, round(got, 3)))
    assert len({name for name, _ in seen}) == 11
    assert magnitude == 0 or len(seen) == 20                       # both signs of the nine operations that have one


def test_trivial_augment_has_torchvisions_magnitudes():
    op, value = build("image/trivial_augment").parameters_of(draw(20000))
    # But for 16 pixels, which its float32 linspace gives as 15.999999 and then cuts to 15.
    for index, (name, (magnitudes, signed)) in enumerate(TrivialAugmentWide()._augmentation_space(31).items()):
        if magnitudes.ndim:
            one = [math.trunc(m + 1e-5) if name.startswith("Translate") else m for m in magnitudes.tolist()]
            wanted = {round(in_our_units(name, m), 5) for m in one + ([-m for m in one] if signed else [])}
            assert {round(v, 5) + 0.0 for v in value[op == index].tolist()} == wanted, name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", MODES)
def test_rand_augment_applies_its_steps_in_order(channels, interpolation):
    # After an enhancement values lie between the 8-bit steps, and a rounding of 1e-7 may decide about one of them.
    x, d = eight_bit(128, channels), draw(128)
    op = build("image/rand_augment", num_ops=2, magnitude=12, interpolation=interpolation)
    kinds, values = op.parameters_of(d, 32, 32)
    wanted = []
    for row, steps, magnitudes in zip(x, kinds.tolist(), values.tolist(), strict=True):
        for kind, value in zip(steps, magnitudes, strict=True):
            value = value - in_our_units(OPS[kind], 0.0)
            row = by_torchvision(row, OPS[kind], value * 255 if OPS[kind] == "Solarize" else value, interpolation)
        wanted.append(row)
    wrong = (op(x, d) - torch.stack(wanted)).abs() > 1e-5
    assert len(set(kinds.flatten().tolist())) == 14
    assert wrong.float().mean() < 1e-4


def test_a_batch_is_not_written_into():
    x = eight_bit()
    for name in ("image/rand_augment", "image/trivial_augment", "image/noisy_rand_augment"):
        build(name)(x, draw())
        assert torch.equal(x, eight_bit())


# Worked out from the authors' level functions for an image of 40 x 20: rotate 30, shear 0.3, translate 45 %, factor 0.1
# to 1.9, up to 4 bits, threshold up to 256, add up to 110.
STRENGTH = {
    10: {ours.SHEAR_X: 0.3, ours.SHEAR_Y: 0.3, ours.TRANSLATE_X: 9.0, ours.TRANSLATE_Y: 18.0, ours.ROTATE: 30.0,
         ours.BRIGHTNESS: 1.9, ours.COLOR: 1.9, ours.CONTRAST: 1.9, ours.SHARPNESS: 1.9, ours.POSTERIZE: 4.0,
         ours.SOLARIZE: 256 / 255, ours.SOLARIZE_ADD: 110 / 255},
    3: {ours.SHEAR_X: 0.09, ours.SHEAR_Y: 0.09, ours.TRANSLATE_X: 2.7, ours.TRANSLATE_Y: 5.4, ours.ROTATE: 9.0,
        ours.BRIGHTNESS: 0.64, ours.COLOR: 0.64, ours.CONTRAST: 0.64, ours.SHARPNESS: 0.64, ours.POSTERIZE: 1.0,
        ours.SOLARIZE: 76 / 255, ours.SOLARIZE_ADD: 33 / 255},
}


@pytest.mark.parametrize("level", STRENGTH)
def test_noisy_rand_augment_has_the_authors_magnitudes(level):
    op, value = build("image/noisy_rand_augment", magnitude=level, magnitude_std=0.0, p=1.0).parameters_of(
        draw(2000), 40, 20)
    for kind, magnitude in STRENGTH[level].items():
        got = value[op == kind]
        assert largest(got.abs(), torch.full_like(got, magnitude)) < 1e-9
        assert (got < 0).any() == (kind <= ours.ROTATE)
    assert set(op.flatten().tolist()) == set(range(1, 16))


def test_noisy_rand_augment_translates_by_so_many_pixels_where_told():
    op = build("image/noisy_rand_augment", magnitude_std=0.0, p=1.0, translate=100)
    kind, value = op.parameters_of(draw(512), 224, 64)
    assert value[(kind == ours.TRANSLATE_X) | (kind == ours.TRANSLATE_Y)].abs().unique().tolist() == [100.0]


def test_noisy_rand_augment_draws_its_magnitude():
    op, value = build("image/noisy_rand_augment", magnitude=5, magnitude_std=0.5, p=0.5).parameters_of(
        draw(20000), 32, 32)
    taken = (op != ours.IDENTITY).double().mean().item()
    level = value[op == ours.ROTATE].abs() / 3.0
    assert abs(taken - 0.5) < 0.01
    assert abs(level.mean().item() - 5) < 0.05 and abs(level.std().item() - 0.5) < 0.03


def test_a_rounding_of_the_last_bit_does_not_decide_what_is_solarised():
    value = torch.arange(256.0)
    for x in (value / 255, torch.nextafter(value / 255, torch.tensor(0.0))):    # compiled code may round the other way
        y = apply_step(x.view(256, 1, 1, 1), torch.full((256,), ours.SOLARIZE), value.double() / 255)
        assert largest(y.flatten(), 1 - x) == 0                    # each value is at its threshold


def test_solarize_add_and_invert():
    x = (images(2) * 255).round() / 255
    magnitude = torch.tensor([110 / 255, 0.0], dtype=torch.float64)
    y = apply_step(x, torch.tensor([ours.SOLARIZE_ADD, ours.INVERT]), magnitude)
    value = as_uint8(x).int()
    added = torch.where(value[0] < 128, (value[0] + 110).clamp(max=255), value[0])
    assert largest(y[0] * 255, added) < 1e-3
    assert torch.equal(y[1], TF.invert(x[1]))


@pytest.mark.parametrize("entry, message", [
    ({"image/rand_augment": {"num_ops": 0}}, "num_ops is 0, it must be a whole number of at least 1"),
    ({"image/rand_augment": {"magnitude": 31}}, "magnitude is 31, it must be a whole number in [0, 30]"),
    ({"image/rand_augment": {"interpolation": "bicubic"}}, "interpolation=bicubic: there are: bilinear, nearest"),
    ({"image/trivial_augment": {"num_bins": 1}}, "num_bins is 1, it must be a whole number of at least 2"),
    ({"image/noisy_rand_augment": {"magnitude": 11}}, "magnitude is 11 with magnitude_std 0.5, they must be in"),
])
def test_wrong_options_are_named(entry, message):
    (problem,) = registry.check([entry])
    assert problem.startswith(f"{next(iter(entry))}: {message}")
