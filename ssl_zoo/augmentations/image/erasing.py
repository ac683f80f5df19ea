"""Operations that remove a part of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import full_precision, noise, per_channel
from ssl_zoo.augmentations.image.geometry import ATTEMPTS, interval, probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


def inside(box: Tensor, image: Tensor) -> Tensor:
    """``[B, 1, H, W]`` bool: whether a pixel of ``image`` lies in ``box [B, 4]`` (top, left, height, width)."""
    row = torch.arange(image.shape[-2], device=image.device).view(1, -1, 1)
    column = torch.arange(image.shape[-1], device=image.device)
    top, left, height, width = box.view(-1, 4, 1, 1).unbind(1)
    return ((row >= top) & (row < top + height) & (column >= left) & (column < left + width)).unsqueeze(1)


@register("image/random_erasing")
class RandomErasing(nn.Module):
    """Overwrite a random box with probability ``p`` (torchvision ``RandomErasing``).

    Reports ``box``: ``[B, 4]`` int64 top, left, height, width; all 0 where nothing was erased.

    Args:
        p: share of the samples.
        scale: range of the share of the image's area, uniform.
        ratio: range of height / width, log-uniform.
        value: one number, one for each channel, or "random": normal noise of mean 0 and variance 1, as torchvision
            puts in place of normalised pixels. Views are normalised after their operations: there it is stronger.
    """

    per_channel = ("value",)

    def __init__(self, p: float = 0.5, scale: Sequence[float] = (0.02, 0.33), ratio: Sequence[float] = (0.3, 3.3),
                 value: float | str | Sequence[float] = 0.0):
        super().__init__()
        self.p = probability(p)
        self.scale = interval("scale", scale, high=1.0)
        self.ratio = interval("ratio", ratio, low=1e-6)
        if isinstance(value, str) and value != "random":
            raise ValueError(f"value is {value!r}, it must be a number, one for each channel, or random")
        self.value = value

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        box = self.boxes(draw, *x.shape[-2:])
        applied = draw.uniform("apply") < self.p
        box = torch.where(applied.unsqueeze(1), box, 0)
        draw.report("box", box)
        if isinstance(self.value, str):
            value = noise(x, draw)                                                          # [B, C, H, W]
        else:
            value = per_channel("image/random_erasing: value", self.value, x)
        return torch.where(inside(box, x), value, x)

    def boxes(self, draw: Draw, height: int, width: int) -> Tensor:
        """``[B, 4]`` int64 boxes smaller than the image on both sides; all 0 if none of ten attempts was."""
        share, shape = draw.uniform("box", ATTEMPTS, 2).double().unbind(2)                       # 2 x [B, 10]
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * share)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * shape)
        h, w = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (h < height) & (w < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        h, w = h.gather(1, first), w.gather(1, first)                                            # [B, 1]
        place = draw.uniform("place", 2).double()
        top = (place[:, :1] * (height - h + 1)).floor()
        left = (place[:, 1:] * (width - w + 1)).floor()
        box = torch.cat((top, left, h, w), dim=1)
        return torch.where(fits.any(dim=1, keepdim=True), box, 0.0).long()


@register("image/cutout")
class Cutout(nn.Module):
    """A square of ``value`` around a pixel that may be any; what lies outside the image is cut off
    (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).

    Args:
        side: of the square in pixels.
        p: share of the samples.
        value: one number, or one for each channel.
    """

    per_channel = ("value",)

    def __init__(self, side: int, p: float = 1.0, value: float | Sequence[float] = 0.0):
        super().__init__()
        if not isinstance(side, int) or side < 1:
            raise ValueError(f"side is {side!r}, it must be a whole number of at least 1: pixels")
        self.side = side
        self.p = probability(p)
        self.value = value

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        centre = draw.uniform("place", 2).double()
        top, left = ((centre[:, i] * side).floor().long() - self.side // 2 for i, side in enumerate(x.shape[-2:]))
        side = torch.where(draw.uniform("apply") < self.p, self.side, 0)
        box = torch.stack((top, left, side, side), dim=1)
        return torch.where(inside(box, x), per_channel("image/cutout: value", self.value, x), x)
