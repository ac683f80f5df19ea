"""The colour jitter of BYOL, which adds to the brightness and scales the saturation of HSV."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_zoo.augmentations.image.color import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    ColorJitter,
    jitter_by_mask,
    jitter_by_order,
    rotate_hue,
)
from ssl_zoo.augmentations.image.common import full_precision
from ssl_zoo.augmentations.image.geometry import interval
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


@register("image/color_jitter_hsv")
class ColorJitterHSV(ColorJitter):
    """Brightness, contrast, saturation and hue in an order of their own for each sample, as BYOL's authors define them
    (deepmind-research ``byol/utils/augmentations.py``); pixels are cut to [0, 1] after each.

    On a GPU it is made of torch's operations, not of the kernels that ``image/color_jitter`` has.

    Args:
        brightness: what is added to all channels is uniform in [-x, x], or in the [low, high] given.
        contrast: the factor about the mean of each channel, uniform in [max(0, 1 - x), 1 + x] or in the [low, high].
        saturation: the factor of HSV's saturation, uniform as that of the contrast.
        hue: the turn is uniform in [-x, x] of a full circle, x <= 0.5, or in the [low, high] given.
        p: share of the samples that are changed at all.
    """

    neutral = (0.0, 1.0, 1.0, 0.0)

    def __init__(self, brightness: float | Sequence[float] = 0.0, contrast: float | Sequence[float] = 0.0,
                 saturation: float | Sequence[float] = 0.0, hue: float | Sequence[float] = 0.0, p: float = 1.0):
        super().__init__(0.0, contrast, saturation, hue, p)
        added = brightness if isinstance(brightness, Sequence) else [-brightness, brightness]
        self.ranges[BRIGHTNESS] = interval("brightness", added, low=-1.0, high=1.0)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        order, factors = self.parameters_of(draw)
        factors = factors.to(x.dtype)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return jitter_by_order(x, order, factors, _STEPS, self.neutral)
        return jitter_by_mask(x, order, factors, self.ranges[HUE] != (0.0, 0.0), mix)


def _brighter(x: Tensor, added: Tensor) -> Tensor:
    return x.add_(added.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)


def _contrasted(x: Tensor, factor: Tensor) -> Tensor:
    means, factor = x.mean(dim=(2, 3), keepdim=True), factor.view(-1, 1, 1, 1)                   # [n, C, 1, 1]
    return x.mul_(factor).add_((1.0 - factor) * means).clamp_(0.0, 1.0)


def _saturated(x: Tensor, factor: Tensor) -> Tensor:
    value, most = _value_and_most(x)
    return x.sub_(value).mul_(torch.minimum(factor.view(-1, 1, 1, 1), most)).add_(value).clamp_(0.0, 1.0)


def _value_and_most(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, 1, H, W]`` HSV's value, and the factor that makes each pixel's saturation 1."""
    value = x.amax(dim=1, keepdim=True)
    return value, value / (value - x.amin(dim=1, keepdim=True)).clamp(min=1e-30)


_STEPS = (_brighter, _contrasted, _saturated, rotate_hue)   # by torchvision's numbers


def mix(x: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Brightness, contrast and saturation are one formula, ``base + factor * (x - base) + added``.

    Args:
        kind: ``[B]``, BRIGHTNESS, CONTRAST or SATURATION; with anything else the factor must be 1.
        factor: ``[B]``; of BRIGHTNESS what is added.
    """
    kind, factor = kind.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    value, most = _value_and_most(x)
    base = torch.where(kind == CONTRAST, x.mean(dim=(2, 3), keepdim=True), torch.where(kind == SATURATION, value, 0.0))
    times = torch.where(kind == SATURATION, torch.minimum(factor, most), torch.where(kind == BRIGHTNESS, 1.0, factor))
    return ((x - base) * times).add_(base).add_(torch.where(kind == BRIGHTNESS, factor, 0.0)).clamp_(0.0, 1.0)
