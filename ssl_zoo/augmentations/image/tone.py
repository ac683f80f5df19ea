"""Operations on the values of pixels. Each equals torchvision's functional of the same name.

Posterize and equalize are defined on 8-bit values: they round to 255 steps, and give multiples of 1/255.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.geometry import interval, probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw

LEVELS = 256


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest ``bits [B]`` (0 to 8) of each 8-bit value."""
    step = torch.exp2(8.0 - bits.to(x.dtype)).view(-1, 1, 1, 1)
    return (x * 255.0).round_().div_(step).floor_().mul_(step).div_(255.0)


def equalize(x: Tensor) -> Tensor:
    """Spread the 8-bit values of each channel so that all are equally frequent, with the integers of Pillow."""
    value = (x.flatten(2) * 255.0).round_().clamp_(0.0, 255.0).long()                            # [B, C, H * W]
    ones = torch.ones((), dtype=torch.int32, device=x.device).expand(value.shape)
    count = torch.zeros(*value.shape[:2], LEVELS, dtype=torch.int32, device=x.device).scatter_add_(2, value, ones)
    brightest = count.gather(2, value.amax(dim=2, keepdim=True))
    step = (value.shape[2] - brightest) // 255                                                   # [B, C, 1]
    below = count.cumsum(2) - count
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    level = torch.arange(LEVELS, device=x.device)
    table = torch.where(step == 0, level, table).to(x.dtype).div_(255.0)   # too few pixels to spread: as they are
    return table.gather(2, value).view(x.shape)


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; a channel of one value stays as it is."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, 1.0 / (high - low))
    return ((x - torch.where(flat, 0.0, low)) * scale).clamp_(0.0, 1.0)


def sharpen(x: Tensor, factor: Tensor) -> Tensor:
    """``factor * x + (1 - factor) * smooth`` for ``factor [B]``: 0 smooths, 1 changes nothing, 2 sharpens.

    The smoothing is 1 around, 5 in the middle, over 13; the border stays as it is.
    """
    if min(x.shape[-2:]) <= 2:
        return x
    inner = x[..., 1:-1, 1:-1]
    change = (F.avg_pool2d(x, 3, stride=1) - inner).mul_(9.0 / 13.0)
    change = F.pad(change * (1.0 - factor.to(x.dtype)).view(-1, 1, 1, 1), [1] * 4)
    return change.add_(x).clamp_(0.0, 1.0)


@register("image/posterize")
class Posterize(nn.Module):
    """Keep the highest bits of the 8-bit values with probability ``p`` (torchvision ``RandomPosterize``).

    Args:
        bits: 0 to 8, or the [low, high] from which each sample draws its own.
    """

    rounds = True   # to 8 bits, the next of which a last bit may reach

    def __init__(self, bits: int | Sequence[int], p: float = 0.5):
        super().__init__()
        low, high = interval("bits", bits if isinstance(bits, Sequence) else (bits, bits), high=8)
        if not low.is_integer() or not high.is_integer():
            raise ValueError(f"bits is {bits}, it must be a whole number in [0, 8] or a range of them")
        self.bits = (int(low), int(high))
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        bits = self.bits[0] + draw.integers("bits", self.bits[1] - self.bits[0] + 1)
        return apply_to(x, draw.uniform("apply") < self.p, posterize, bits)


@register("image/equalize")
class Equalize(nn.Module):
    """Equalise the histogram of each channel with probability ``p`` (torchvision ``RandomEqualize``)."""

    rounds = True   # to 8 bits, the next of which a last bit may reach

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return apply_to(x, draw.uniform("apply") < self.p, equalize)


@register("image/autocontrast")
class AutoContrast(nn.Module):
    """Stretch each channel to the whole range with probability ``p`` (torchvision ``RandomAutocontrast``)."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return apply_to(x, draw.uniform("apply") < self.p, autocontrast)


@register("image/invert")
class Invert(nn.Module):
    """The negative with probability ``p`` (torchvision ``RandomInvert``)."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        applied = (draw.uniform("apply") < self.p).view(-1, 1, 1, 1)
        return torch.where(applied, 1.0 - x, x)


@register("image/sharpness")
class Sharpness(nn.Module):
    """Smooth or sharpen with probability ``p`` (torchvision ``RandomAdjustSharpness``).

    Args:
        factor: 0 smooths, 1 changes nothing, 2 sharpens; or the [low, high] from which each sample draws its own.
    """

    def __init__(self, factor: float | Sequence[float], p: float = 0.5):
        super().__init__()
        self.factor = interval("factor", factor if isinstance(factor, Sequence) else (factor, factor))
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        factor = self.factor[0] + (self.factor[1] - self.factor[0]) * draw.uniform("factor")
        return apply_to(x, draw.uniform("apply") < self.p, sharpen, factor)


def photometric(x: Tensor, bits: Tensor, factor: Tensor, threshold: Tensor) -> Tensor:
    """Posterize, sharpen, solarize and stretch, with a number ``[B]`` for each of the first three; the third is one of
    256 grey values, or 256 for none."""
    x = sharpen(posterize(x, bits), factor)
    x = torch.where((x * 255.0).round() >= threshold.view(-1, 1, 1, 1), 1.0 - x, x)
    return autocontrast(x)


@register("image/photometric")
class Photometric(nn.Module):
    """Posterize (4 to 8 bits), sharpness (0.1 to 1.9), solarize (any threshold) and autocontrast, all with probability
    ``p`` (``ImgPilRandomPhotometric`` of facebookresearch/vissl@09270ed, in PIRL)."""

    rounds = True   # to 8 bits, the next of which a last bit may reach

    def __init__(self, p: float = 0.66):
        super().__init__()
        self.p = probability(p)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        bits, factor = 4 + draw.integers("bits", 5), 0.1 + 1.8 * draw.uniform("factor")
        threshold = draw.integers("threshold", LEVELS + 1)
        return apply_to(x, draw.uniform("apply") < self.p, photometric, bits, factor, threshold)
