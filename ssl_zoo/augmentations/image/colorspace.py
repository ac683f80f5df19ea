"""Other colour spaces: luminance and colour as channels of their own. The last operation of a view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import full_precision, per_channel
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw

XYZ_FROM_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
RGB_FROM_XYZ = (
    (3.24048134, -1.53715152, -0.49853633), (-0.96925495, 1.87599, 0.04155593), (0.05564664, -0.20404134, 1.05731107)
)
D65 = (0.95047, 1.0, 1.08883)   # white of the 2 degree observer
YDBDR_FROM_RGB = ((0.299, 0.587, 0.114), (-0.450, -0.883, 1.333), (-1.333, 1.116, 0.217))   # ITU-R BT.470, SECAM


def rgb_to_lab(x: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE L*a*b* (D65): L in [0, 100], a in [-86.2, 98.3], b in [-107.9, 94.5]."""
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).pow(2.4), x / 12.92)
    xyz = _mix(linear, [[weight / white for weight in row] for row, white in zip(XYZ_FROM_RGB, D65, strict=True)])
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.0).pow(1 / 3), 7.787 * xyz + 16 / 116)
    fx, fy, fz = f.unbind(1)
    return torch.stack((116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)), dim=1)


def lab_to_rgb(x: Tensor) -> Tensor:
    """The inverse of :func:`rgb_to_lab`; colours that sRGB does not have are cut off at 0 and may lie above 1.

    As ``lab2rgb`` in util/util.py of richzhang/colorization-pytorch@66a1cb2, whose matrix is rounded to 8 digits.
    """
    fy = (x[:, 0] + 16.0) / 116.0
    f = torch.stack((x[:, 1] / 500.0 + fy, fy, (fy - x[:, 2] / 200.0).clamp(min=0.0)), dim=1)
    xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16.0 / 116.0) / 7.787)
    rgb = _mix(xyz, [[weight * white for weight, white in zip(row, D65, strict=True)] for row in RGB_FROM_XYZ])
    rgb = rgb.clamp(min=0.0)
    return torch.where(rgb > 0.0031308, 1.055 * rgb.clamp(min=0.0031308).pow(1 / 2.4) - 0.055, 12.92 * rgb)


def rgb_to_ydbdr(x: Tensor) -> Tensor:
    """RGB in [0, 1] to YDbDr: Y in [0, 1], Db and Dr in [-1.333, 1.333]."""
    return _mix(x, YDBDR_FROM_RGB)


def _mix(x: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """A 3x3 matrix on the channels, in numbers rather than a tensor: nothing to keep on the right device."""
    red, green, blue = x.unbind(1)
    return torch.stack([red * row[0] + green * row[1] + blue * row[2] for row in matrix], dim=1)


def _keep(keep: Sequence[int]) -> list[int]:
    if not keep or any(channel not in (0, 1, 2) for channel in keep):
        raise ValueError(f"keep is {list(keep)}, it must be some of the channels 0, 1, 2")
    return list(keep)


def _choose(x: Tensor, keep: list[int]) -> Tensor:
    return x if keep == [0, 1, 2] else torch.cat([x[:, channel:channel + 1] for channel in keep], dim=1)


@register("image/lab")
class Lab(nn.Module):
    """RGB to CIE L*a*b*, with the numbers of ``skimage.color.rgb2lab``.

    Args:
        scaled: (value - centre) / half range of each channel, so that all lie in [-1, 1] (as HobbitLong/CMC
            ``train_CMC.py`` normalises); the view then needs ``normalize: null``.
        keep: channels of the result: [0] is L, [1, 2] is ab, the two views of CMC.
        centre, half_range: the three numbers of each for ``scaled``, in place of CMC's.
    """

    needs_rgb = True
    other_channels = True
    CENTRE = (50.0, (98.233 - 86.183) / 2, (94.478 - 107.857) / 2)
    HALF_RANGE = (50.0, (98.233 + 86.183) / 2, (94.478 + 107.857) / 2)

    def __init__(self, scaled: bool = True, keep: Sequence[int] = (0, 1, 2), centre: Sequence[float] = CENTRE,
                 half_range: Sequence[float] = HALF_RANGE):
        super().__init__()
        self.scaled = scaled
        self.keep = _keep(keep)
        self.centre, self.half_range = list(centre), list(half_range)
        if min(self.half_range) <= 0:
            raise ValueError(f"half_range is {self.half_range}, it must be above 0")

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        x = rgb_to_lab(x)
        if self.scaled:
            x = (x - per_channel("centre", self.centre, x)) / per_channel("half_range", self.half_range, x)
        return _choose(x, self.keep)


@register("image/ydbdr")
class YDbDr(nn.Module):
    """RGB to YDbDr, with the numbers of ``skimage.color.rgb2ydbdr``.

    Args:
        scaled: (value - mean) / std with the numbers of HobbitLong/PyContrast ``datasets/util.py``; the view then needs
            ``normalize: null``.
        keep: channels of the result: [0] is Y, [1, 2] is DbDr.
    """

    needs_rgb = True
    other_channels = True
    MEAN = (0.457, -0.082, -0.052)
    STD = (0.500, 1.331, 1.333)

    def __init__(self, scaled: bool = True, keep: Sequence[int] = (0, 1, 2)):
        super().__init__()
        self.scaled = scaled
        self.keep = _keep(keep)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        x = rgb_to_ydbdr(x)
        if self.scaled:
            x = (x - per_channel("mean", self.MEAN, x)) / per_channel("std", self.STD, x)
        return _choose(x, self.keep)
