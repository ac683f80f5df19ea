"""What takes away the traces by which the place of a tile can be told without looking at what it shows.

Brightness, contrast, sharpness, and chromatic aberration: a lens focuses colours at other distances from its middle
(Sec. 3.1 and 4.2 of https://arxiv.org/abs/1505.05192, https://arxiv.org/abs/1603.09246). They work on images and, in
the option ``each`` of an operation that cuts tiles, on every tile alone; a share of grey images is
``image/grayscale``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.geometry import probability
from ssl_zoo.augmentations.image.sampling import resample
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require

CHANNELS = ("apart", "together")
CONSTANT = 1e-6   # the deviation of one value, but for the rounding of its mean
GREY = 1 / 255   # one of 256 grey values


@register("image/standardise")
class Standardise(nn.Module):
    """Mean 0 and deviation 1 for each image alone. It leaves [0, 1]: the last operation, with ``normalize: null``.

    Args:
        channels: ``apart``: each channel by its own mean and unbiased deviation, a constant one becomes 0
            (JigsawImageLoader.py of bbrattoli/JigsawPuzzlePytorch@ec85994). ``together``: all of them by one, whose
            deviation is that of the pixels and at least a grey value over the root of their number
            (``tf.image.per_image_standardization``, in preprocess.py of google/revisiting-self-supervised@b530e3b).
    """

    def __init__(self, channels: str = "apart"):
        super().__init__()
        require("channels", channels, CHANNELS)
        self.apart = channels == "apart"

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        over = (2, 3) if self.apart else (1, 2, 3)
        deviation = x.std(over, correction=int(self.apart), keepdim=True)
        if self.apart:
            deviation = torch.where(deviation > CONSTANT, deviation, 1.0)
        else:
            deviation = deviation.clamp(min=GREY / math.sqrt(x[0].numel()))
        return (x - x.mean(over, keepdim=True)) / deviation


@register("image/drop_colours")
class DropColours(nn.Module):
    """One channel stays, less its mean; the others become noise; then all are scaled (``prep_image`` in train.py of
    cdoersch/deepcontext@5307282). It leaves [0, 1]: the last operation, with ``normalize: null``.

    Reports ``kept``: ``[B]`` int64, the channel.

    Args:
        noise: width of the uniform noise around 0; the authors' is one grey value of 255.
        rms: root of the mean square of the result; the authors' is 50, for networks that take pixels up to 255.
    """

    def __init__(self, noise: float = GREY, rms: float = 1.0):
        super().__init__()
        if noise < 0 or rms <= 0:
            raise ValueError(f"noise is {noise} and rms {rms}: wanted at least 0, and above 0")
        self.noise, self.rms = noise, rms

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        kept = draw.integers("kept", x.shape[1])                                                 # [B]
        draw.report("kept", kept)
        stays = torch.arange(x.shape[1], device=x.device) == kept.unsqueeze(1)                   # [B, C]
        noise = (draw.uniform("noise", *x.shape[1:]).to(x.dtype) - 0.5) * self.noise
        x = torch.where(stays[:, :, None, None], x - x.mean((2, 3), keepdim=True), noise)
        return x / x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=CONSTANT * GREY) * self.rms


@register("image/drop_green_magenta")
class DropGreenMagenta(nn.Module):
    """Colours without the direction from green to magenta, along which lenses err most: ``x - a (a x) / (a a)`` with
    ``a = [-1, 2, -1]`` (Sec. 3.1 of https://arxiv.org/abs/1505.05192, "projection"). It may leave [0, 1] by a third."""

    needs_rgb = True

    def __init__(self) -> None:   # without it the options would be those of nn.Module
        super().__init__()

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        along = (2 * x[:, 1] - x[:, 0] - x[:, 2]) / 6                                            # [B, H, W]
        return x + torch.stack((along, -2 * along, along), dim=1)


@register("image/shift_channels")
class ShiftChannels(nn.Module):
    """Each channel gets a number of its own added and is cut to [0, 1] (``rgb_jittering`` of
    bbrattoli/JigsawPuzzlePytorch@ec85994, whose numbers are -2, -1, 0 and 1).

    Args:
        low, high: grey values of 255, both of which are drawn.
    """

    def __init__(self, low: int = -2, high: int = 1):
        super().__init__()
        if low > high:
            raise ValueError(f"low is {low} and high {high}: wanted low <= high")
        self.low, self.high = low, high

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        shift = draw.integers("shift", self.high - self.low + 1, x.shape[1]) + self.low          # [B, C]
        return (x + shift[:, :, None, None].to(x.dtype) * GREY).clamp_(0, 1)


@register("image/degrade")
class Degrade(nn.Module):
    """Some images are made as small as a few pixels and large again (``prep_image`` in train.py of
    cdoersch/deepcontext@5307282, patches of 96 pixels with 10 x 10 to 94 x 94 of them).

    The number of pixels is uniform, up to a side of one pixel less than the image's; bilinear, without antialiasing.

    Args:
        p: share of the images.
        smallest: side of the smallest one.
    """

    def __init__(self, p: float = 0.33, smallest: int = 10):
        super().__init__()
        if smallest < 1:
            raise ValueError(f"smallest is {smallest}, it must be at least 1")
        self.p, self.smallest = probability(p), smallest

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        most = min(x.shape[2:]) - 1
        if most < self.smallest:
            raise ValueError(f"image/degrade: images of {x.shape[2]}x{x.shape[3]} cannot be made smaller to "
                             f"{self.smallest}x{self.smallest}; set smallest to {max(most, 1)} or less")
        area = self.smallest**2 + draw.uniform("area").double() * (most**2 - self.smallest**2)
        return apply_to(x, draw.uniform("apply") < self.p, degrade, area.sqrt().floor())


def degrade(x: Tensor, side: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` at ``side [B]`` x ``side`` pixels, at their own size again."""
    there_and_back = (
        _bilinear(side, torch.full_like(side, length), length) @ _bilinear(torch.full_like(side, length), side, length)
        for length in x.shape[2:]
    )
    return resample(x, *there_and_back)


def _bilinear(source: Tensor, target: Tensor, most: int) -> Tensor:
    """``[B, most, most]`` weights by which ``source [B]`` pixels become ``target [B]``, without antialiasing.

    Columns from ``source`` on are 0; rows from ``target`` on mean nothing.
    """
    pixel = torch.arange(most, device=source.device)
    place = ((pixel + 0.5) * (source / target).unsqueeze(1) - 0.5).clamp(min=0)                  # [B, most]
    place = torch.minimum(place, source.unsqueeze(1) - 1)
    return (1 - (place.unsqueeze(2) - pixel).abs()).clamp(min=0)
