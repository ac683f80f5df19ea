"""Shifts that fill what they uncover with the mirrored image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import apply_to
from ssl_zoo.augmentations.image.geometry import probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


@register("image/translate")
class Translate(nn.Module):
    """Shift by up to some pixels in each direction, mirrored at the border: ``RandomTranslateWithReflect`` of AMDIM
    (https://arxiv.org/abs/1906.00910, datasets.py) and of CPC on CIFAR-10 in Lightning Bolts.

    Reports ``shift``: ``[B, 2]`` pixels down and right, 0 where nothing was done.

    Args:
        pixels: largest shift.
        p: probability.
    """

    def __init__(self, pixels: int = 4, p: float = 1.0):
        super().__init__()
        if pixels < 0:
            raise ValueError(f"pixels is {pixels}, it must not be negative")
        self.pixels = pixels
        self.p = probability(p)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        if min(x.shape[-2:]) <= self.pixels:
            raise ValueError(f"image/translate: an image of {x.shape[-2]}x{x.shape[-1]} cannot be mirrored by "
                             f"{self.pixels} pixels; set pixels to less than its side")
        hit = draw.uniform("hit") < self.p
        shift = draw.integers("shift", 2 * self.pixels + 1, 2) - self.pixels
        draw.report("shift", shift * hit[:, None])
        return apply_to(x, hit, self._shifted, shift)

    def _shifted(self, x: Tensor, shift: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        top, left = (self.pixels - shift).unbind(1)                                              # 2 x [B]
        x = F.pad(x, [self.pixels] * 4, mode="reflect")
        rows = top[:, None] + torch.arange(height, device=x.device)                              # [B, H]
        columns = left[:, None] + torch.arange(width, device=x.device)                           # [B, W]
        x = x.gather(2, rows[:, None, :, None].expand(-1, channels, -1, x.shape[3]))
        return x.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
