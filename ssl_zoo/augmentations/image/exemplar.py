"""Colour operations of Exemplar-CNN, each of which stretches the image to the full range afterwards.

From EricArazo/ExemplarCNN@dac9075, transformations.py, which also cuts the result to 8 bits; these do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.image.color import rotate_hue
from ssl_zoo.augmentations.image.common import full_precision
from ssl_zoo.augmentations.image.geometry import interval
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


def stretched(x: Tensor) -> Tensor:
    """``[B, C, H, W]`` with the smallest number of each image at 0, the largest at 1; a single one is 0."""
    x = x - x.amin((1, 2, 3), keepdim=True)
    return x / x.amax((1, 2, 3), keepdim=True).clamp(min=1e-30)


def between(span: tuple[float, float], number: Tensor) -> Tensor:
    """Numbers of [0, 1) as numbers of ``span``."""
    return span[0] + (span[1] - span[0]) * number


@register("image/pca_color")
class PCAColor(nn.Module):
    """Scale the colours of each image along its own principal components (``PCA_rand_always``), and stretch it.

    The paper (https://arxiv.org/abs/1406.6909, Sec. 3.1) says no more than that; the code takes the mean colour of each
    column of pixels from them first.

    Args:
        factor: Range of the factor of each of the three components, uniform.
        by_column: As the code; False: the mean colour of the whole image.
    """

    needs_rgb = True

    def __init__(self, factor: Sequence[float] = (0.5, 2.0), by_column: bool = True):
        super().__init__()
        self.factor = interval("factor", factor)
        self.by_column = by_column

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        factors = between(self.factor, draw.uniform("factors", 3)).to(x.dtype)                   # [B, 3]
        return self.scaled(x, factors)

    def scaled(self, x: Tensor, factors: Tensor) -> Tensor:
        """``factors [B, 3]`` of the first (widest), the second and the third component."""
        mean = x.mean(2 if self.by_column else (2, 3), keepdim=True)
        pixels = (x - mean).flatten(2)                                                           # [B, 3, H * W]
        components = torch.linalg.eigh((pixels @ pixels.mT).double()).eigenvectors.to(x.dtype)   # narrowest first
        along = components.mT @ pixels * factors.flip(1)[:, :, None]
        return stretched((components @ along).view_as(x) + mean)


@register("image/hsv_contrast")
class HSVContrast(nn.Module):
    """Saturation and value of HSV to ``s^power * factor + addition`` (``HSV_contrast_2``), and stretch the image.

    Args:
        power, factor, addition: Ranges of the three numbers of each image, uniform.
    """

    needs_rgb = True

    def __init__(self, power: Sequence[float] = (0.25, 4.0), factor: Sequence[float] = (0.7, 1.4),
                 addition: Sequence[float] = (-0.1, 0.1)):
        super().__init__()
        self.spans = [interval("power", power, low=1e-6), interval("factor", factor),
                      interval("addition", addition, low=-1.0, high=1.0)]

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        number = draw.uniform("numbers", 3)
        drawn = [between(span, number[:, i]) for i, span in enumerate(self.spans)]
        return self.changed(x, torch.stack(drawn, dim=1).to(x.dtype))

    def changed(self, x: Tensor, numbers: Tensor) -> Tensor:
        """``numbers [B, 3]`` power, factor and addition."""
        power, factor, addition = (column.view(-1, 1, 1, 1) for column in numbers.unbind(1))
        value = x.amax(1, keepdim=True)                                                          # [B, 1, H, W]
        chroma = value - x.amin(1, keepdim=True)
        saturation = chroma / value.clamp(min=1e-30)
        # How far each channel lies below the value, of the chroma; grey has the hue of red.
        red = torch.cat([torch.zeros_like(value), torch.ones_like(value).expand(-1, 2, -1, -1)], dim=1)
        below = torch.where(chroma > 0, (value - x) / chroma.clamp(min=1e-30), red)
        value, saturation = (part.pow(power) * factor + addition for part in (value, saturation))
        return stretched(value * (1.0 - saturation * below))


@register("image/hue_shift")
class HueShift(nn.Module):
    """Turn the hue of each image (``HSV_color``), and stretch it.

    Args:
        turn: Range of the turn, of a full circle, uniform.
    """

    needs_rgb = True

    def __init__(self, turn: Sequence[float] = (-0.1, 0.1)):
        super().__init__()
        self.turn = interval("turn", turn, low=-0.5, high=0.5)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return self.turned(x, between(self.turn, draw.uniform("turn")).to(x.dtype))

    def turned(self, x: Tensor, turn: Tensor) -> Tensor:
        """``turn [B]`` of a full circle."""
        return stretched(rotate_hue(x, turn))
