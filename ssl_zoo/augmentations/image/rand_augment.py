"""Random sequences of operations, one operation for each sample and step: RandAugment, TrivialAugment and timm's form.

A step does each kind of work once for the whole batch: all shears, translations and rotations are one sampling, all
enhancements one blend. Numbers are torchvision's ``RandAugment``; its 8-bit operations round, the others do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image import color
from ssl_zoo.augmentations.image.affine import check_sampling, inverse_affine, sample_affine
from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.geometry import probability
from ssl_zoo.augmentations.image.tone import autocontrast, equalize, posterize, sharpen
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import NonNegative

# In the order of torchvision's RandAugment; the last two are timm's only. Kinds of work are ranges of this order.
(IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, BRIGHTNESS, COLOR, CONTRAST, SHARPNESS, POSTERIZE,
 SOLARIZE, AUTOCONTRAST, EQUALIZE, INVERT, SOLARIZE_ADD) = range(16)


def apply_step(x: Tensor, op: Tensor, magnitude: Tensor, interpolation: str = "nearest",
               fill: float | Sequence[float] | None = None) -> Tensor:
    """One operation for each sample.

    Args:
        op: ``[B]``, the constants above.
        magnitude: ``[B]`` float64: tangent of a shear, pixels of a translation, degrees of a rotation
            (counter-clockwise), factor of an enhancement, bits that posterize keeps, threshold of solarize or the sum
            that solarize_add adds (in pixel values of [0, 1]); nothing for the others.
    """
    magnitude = magnitude.double()
    if x.shape[1] not in (1, 3):
        op = torch.where(op == COLOR, IDENTITY, op)
    x = x.clone()   # the operations below overwrite the samples that they change
    apply = partial(apply_to, overwrite=True)
    moves = partial(sample_affine, interpolation=interpolation, fill=fill)
    x = apply(x, (op >= SHEAR_X) & (op <= ROTATE), moves, _matrices(op, magnitude, *x.shape[-2:]))
    factor = magnitude.to(x.dtype)
    kind = torch.where(op == COLOR, color.SATURATION, torch.where(op == CONTRAST, color.CONTRAST, color.BRIGHTNESS))
    x = apply(x, (op >= BRIGHTNESS) & (op <= CONTRAST), color.blend, kind, factor)
    x = apply(x, op == SHARPNESS, sharpen, factor)
    x = apply(x, op == POSTERIZE, posterize, magnitude)
    x = apply(x, op == AUTOCONTRAST, autocontrast)
    x = apply(x, op == EQUALIZE, equalize)
    return apply(x, (op == SOLARIZE) | (op >= INVERT), _solarize, op, factor)


def _matrices(op: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    """``[B, 2, 3]``; the identity for samples that do not move. A shear keeps the upper left corner where it is."""
    none = torch.zeros_like(magnitude)

    def only(which: int, values: Tensor) -> Tensor:
        return torch.where(op == which, values, none)

    slant = torch.atan(magnitude)
    shear = (only(SHEAR_X, slant), only(SHEAR_Y, slant))
    shift = (only(TRANSLATE_X, magnitude), only(TRANSLATE_Y, magnitude))
    sheared = (op == SHEAR_X) | (op == SHEAR_Y)
    corner = (torch.where(sheared, -width / 2, none), torch.where(sheared, -height / 2, none))
    return inverse_affine(only(ROTATE, -magnitude.deg2rad()), shift, none + 1.0, shear, corner)


def _solarize(x: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """Solarize, solarize_add (what is darker than 128 of 255 becomes brighter) and invert."""
    op, magnitude = op.view(-1, 1, 1, 1), magnitude.view(-1, 1, 1, 1)
    level = x + 1e-6   # the rounding of v / 255 decides nothing
    turned = (op == INVERT) | (op == SOLARIZE) & (level >= magnitude)
    brightened = (op == SOLARIZE_ADD) & (level < 128 / 255)
    return torch.where(turned, 1.0 - x, torch.where(brightened, (x + magnitude).clamp(max=1.0), x))


@dataclass(frozen=True)
class Ranges:
    """The strongest magnitude of each kind: translations in pixels, rotation in degrees, posterize in bits lost."""

    shear: float
    translate_x: float
    translate_y: float
    rotate: float
    enhance: float = 0.0
    posterize: float = 0.0
    whole_pixels: bool = True   # of translations, cut towards 0

    def magnitudes(self, op: Tensor, level: Tensor, negative: Tensor) -> Tensor:
        """torchvision's magnitude of each operation.

        Args:
            level: ``[B]`` float64, share of the strongest.
            negative: ``[B]`` bool, the sign of what has one.
        """
        sign = torch.where(negative, -level, level)
        signed = torch.where(op <= SHEAR_Y, sign * self.shear, sign * self.rotate)
        signed = torch.where(op == TRANSLATE_X, sign * self.translate_x, signed)
        signed = torch.where(op == TRANSLATE_Y, sign * self.translate_y, signed)
        signed = torch.where(op >= BRIGHTNESS, sign * self.enhance, signed)
        if self.whole_pixels:   # 16 pixels may come as 15.999999, on one device and not on another
            moved = (op == TRANSLATE_X) | (op == TRANSLATE_Y)
            signed = torch.where(moved, (signed + signed.sign() * 1e-4).trunc(), signed)
        value = torch.where((op >= BRIGHTNESS) & (op <= SHARPNESS), 1.0 + signed, signed)
        value = torch.where(op == POSTERIZE, 8.0 - (level * self.posterize).round(), value)
        return torch.where(op == SOLARIZE, 1.0 - level, value)


def _bins(name: str, value: int, low: int, high: int | None = None) -> int:
    if not isinstance(value, int) or value < low or (high is not None and value > high):
        limit = f"in [{low}, {high}]" if high is not None else f"of at least {low}"
        raise ValueError(f"{name} is {value!r}, it must be a whole number {limit}")
    return value


@register("image/rand_augment")
class RandAugment(nn.Module):
    """``num_ops`` of 14 operations, each drawn anew, all of one magnitude (torchvision ``RandAugment``).

    Args:
        num_ops: steps.
        magnitude: in [0, num_bins - 1], of ``num_bins`` levels.
        interpolation: nearest or bilinear.
        fill: of what comes from outside: one number, one for each channel, or null for zeros.
    """

    rounds = True   # to 8 bits in some of its operations, the next of which a last bit may reach
    colour_step = True
    per_channel = ("fill",)

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_bins: int = 31, interpolation: str = "nearest",
                 fill: float | Sequence[float] | None = None):
        super().__init__()
        self.num_ops = _bins("num_ops", num_ops, 1)
        self.level = _bins("magnitude", magnitude, 0, _bins("num_bins", num_bins, 2) - 1) / (num_bins - 1)
        self.interpolation = check_sampling(interpolation)
        self.fill = fill

    def parameters_of(self, draw: Draw, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``[B, num_ops]`` operations and their magnitudes."""
        op = draw.integers("op", INVERT, self.num_ops)
        ranges = Ranges(0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4.0)
        level = torch.full_like(op, self.level, dtype=torch.float64)
        return op, ranges.magnitudes(op, level, draw.uniform("sign", self.num_ops) < 0.5)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        op, magnitude = self.parameters_of(draw, *x.shape[-2:])
        for step in range(self.num_ops):
            x = apply_step(x, op[:, step], magnitude[:, step], self.interpolation, self.fill)
        return x


@register("image/trivial_augment")
class TrivialAugment(nn.Module):
    """One operation of 14 with a random magnitude of a wide range (torchvision ``TrivialAugmentWide``,
    https://arxiv.org/abs/2103.10158). Translations reach 32 pixels, whatever the size of the image.

    Args:
        num_bins: number of magnitudes.
        interpolation, fill: as in ``image/rand_augment``.
    """

    rounds = True
    colour_step = True
    per_channel = ("fill",)

    def __init__(self, num_bins: int = 31, interpolation: str = "nearest", fill: float | Sequence[float] | None = None):
        super().__init__()
        self.num_bins = _bins("num_bins", num_bins, 2)
        self.interpolation = check_sampling(interpolation)
        self.fill = fill

    def parameters_of(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """``[B]`` operations and their magnitudes."""
        op = draw.integers("op", INVERT)
        level = draw.integers("magnitude", self.num_bins).double() / (self.num_bins - 1)
        return op, Ranges(0.99, 32.0, 32.0, 135.0, 0.99, 6.0).magnitudes(op, level, draw.uniform("sign") < 0.5)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return apply_step(x, *self.parameters_of(draw), self.interpolation, self.fill)


@register("image/noisy_rand_augment")
class NoisyRandAugment(nn.Module):
    """timm's RandAugment, which InfoMin stacks on its other augmentations: 15 operations, each step taken with
    probability ``p``, its magnitude normal around ``magnitude`` (HobbitLong/PyContrast ``datasets/RandAugment.py``).

    The authors choose between bilinear and bicubic sampling at random; this one is always bilinear (or nearest).

    Args:
        num_ops: steps.
        magnitude: mean of the magnitude, which is cut to [0, 10].
        magnitude_std: its standard deviation.
        p: probability of each step.
        interpolation: nearest or bilinear.
        fill: as in ``image/rand_augment``; the authors take the mean colour of ImageNet.
        translate: pixels of the strongest translation; null: 0.45 of the side (the authors: 100 of 224).
    """

    rounds = True
    colour_step = True
    per_channel = ("fill",)

    def __init__(self, num_ops: int = 2, magnitude: float = 10.0, magnitude_std: float = 0.5, p: float = 0.5,
                 interpolation: str = "bilinear", fill: float | Sequence[float] | None = 0.5,
                 translate: NonNegative | None = None):
        super().__init__()
        self.num_ops = _bins("num_ops", num_ops, 1)
        if not 0.0 <= magnitude <= 10.0 or magnitude_std < 0.0:
            raise ValueError(f"magnitude is {magnitude} with magnitude_std {magnitude_std}, they must be in [0, 10] "
                             f"and not negative")
        self.magnitude, self.magnitude_std = magnitude, magnitude_std
        self.p = probability(p)
        self.interpolation = check_sampling(interpolation)
        self.fill = fill
        self.translate = translate

    def parameters_of(self, draw: Draw, height: int, width: int) -> tuple[Tensor, Tensor]:
        """``[B, num_ops]`` operations (identity: step not taken) and their magnitudes."""
        op = 1 + draw.integers("op", SOLARIZE_ADD, self.num_ops)
        taken = draw.uniform("apply", self.num_ops) < self.p
        noise = draw.normal("magnitude", self.num_ops).double()
        level = (self.magnitude + self.magnitude_std * noise).clamp_(0.0, 10.0) / 10.0
        negative = draw.uniform("sign", self.num_ops) < 0.5
        across, down = (0.45 * side if self.translate is None else self.translate for side in (width, height))
        ranges = Ranges(0.3, across, down, 30.0, whole_pixels=False)
        value = ranges.magnitudes(op, level, negative)
        value = torch.where((op >= BRIGHTNESS) & (op <= SHARPNESS), 0.1 + 1.8 * level, value)
        value = torch.where(op == POSTERIZE, (4.0 * level).floor(), value)
        value = torch.where(op == SOLARIZE, (256.0 * level).floor() / 255.0, value)
        value = torch.where(op == SOLARIZE_ADD, (110.0 * level).floor() / 255.0, value)
        return torch.where(taken, op, IDENTITY), value

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        op, magnitude = self.parameters_of(draw, *x.shape[-2:])
        for step in range(self.num_ops):
            x = apply_step(x, op[:, step], magnitude[:, step], self.interpolation, self.fill)
        return x
