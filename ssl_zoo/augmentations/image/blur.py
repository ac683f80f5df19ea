"""Gaussian blur."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.accelerated import kernels_for
from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.geometry import interval, probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require

NEGLIGIBLE = 1e-8   # share of a pixel that no float32 in [0, 1] shows
PADDINGS = {"reflect": "reflect", "zeros": "constant"}   # and what torch calls them
LARGE = 64 * 64   # pixels from which on a CPU adds shifted images faster: 0.6 ms at 224 px and 23 taps, not 1.0


@register("image/gaussian_blur")
class GaussianBlur(nn.Module):
    """Blur with probability ``p``, with a width of its own for each sample (torchvision ``GaussianBlur``).

    Args:
        p: share of the samples that are blurred.
        sigma: range of the standard deviation in pixels, uniform.
        kernel: odd number of taps, or "auto": about 10 % of the view and at least 3, as in SimCLR (23 at 224, 9 at 96;
            google-research/simclr ``data_util.py:random_blur``).
        padding: of the image: ``reflect``, mirrored without repeating its edge; or ``zeros``, which darkens the border
            (the SAME convolution of SimCLR and BYOL).
        sigma_shared_by: samples in a row of the epoch's order that have one width in common: ``${data.batch_size}``
            for those of a batch (SimCLR draws one for a batch of a view); 1: each has its own.
    """

    def __init__(self, size: int, p: float = 0.5, sigma: Sequence[float] = (0.1, 2.0), kernel: int | str = "auto",
                 padding: str = "reflect", sigma_shared_by: int = 1):
        super().__init__()
        if sigma_shared_by < 1:
            raise ValueError(f"sigma_shared_by is {sigma_shared_by}, it must be a number of samples, at least 1")
        require("padding", padding, PADDINGS)
        taps = max(size // 10 // 2, 1) * 2 + 1 if kernel == "auto" else kernel
        if not isinstance(taps, int) or taps < 1 or taps % 2 == 0 or taps > 2 * size - 1:
            raise ValueError(f"kernel is {kernel!r}, it must be auto or an odd number of at most {2 * size - 1} taps "
                             f"for a view of {size}")
        self.p = probability(p)
        self.sigma = interval("sigma", sigma, low=1e-3)
        self.radius = taps // 2
        self.padding = padding
        self.shared_by = sigma_shared_by

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        applied = draw.uniform("apply") < self.p
        weights = self.kernels(draw.in_common(self.shared_by).uniform("sigma"))                  # [B, taps]
        kernels = kernels_for(x)
        if kernels is not None and self.radius < min(x.shape[-2:]):
            return kernels.blur(x, applied, weights, self.padding == "reflect")
        return apply_to(x, applied, partial(convolve, padding=PADDINGS[self.padding]), weights.to(x.dtype))

    def kernels(self, number: Tensor) -> Tensor:
        """``[B, taps]`` weights that sum to 1, for uniform numbers ``[B]``."""
        low, high = self.sigma
        sigma = (low + (high - low) * number).unsqueeze(1)
        tap = torch.arange(-self.radius, self.radius + 1, device=number.device)
        weight = torch.exp(-0.5 * (tap / sigma).square())
        return weight / weight.sum(dim=1, keepdim=True)


def convolve(x: Tensor, weights: Tensor, padding: str = "reflect") -> Tensor:
    """Separable convolution of ``[B, C, H, W]`` with ``[B, taps]``; ``padding`` at the border is a mode of torch's."""
    batch, channels, height, width = x.shape
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        if height * width >= LARGE:
            return torch.cat([_shifted(*row, padding) for row in zip(x.split(1), weights.split(1), strict=True)])
        weights = _trimmed(weights)
    taps = weights.shape[1]
    x = F.pad(x, [taps // 2] * 4, mode=padding).view(1, batch * channels, height + taps - 1, width + taps - 1)
    kernel = weights.repeat_interleave(channels, dim=0)                                          # [B * C, taps]
    x = F.conv2d(x, kernel.view(-1, 1, 1, taps), groups=batch * channels)
    x = F.conv2d(x, kernel.view(-1, 1, taps, 1), groups=batch * channels)
    return x.view(batch, channels, height, width)


def _shifted(x: Tensor, weights: Tensor, padding: str) -> Tensor:
    """:func:`convolve` of one image as a sum of shifted ones, for kernels that are symmetric."""
    half = _trimmed(weights)[0].tolist()
    radius = len(half) // 2
    height, width = x.shape[-2:]
    x = F.pad(x, [radius] * 4, mode=padding)
    across = x[..., radius:radius + width] * half[radius]
    for i in range(radius):
        across.add_(x[..., i:i + width], alpha=half[i])
        across.add_(x[..., 2 * radius - i:2 * radius - i + width], alpha=half[i])
    out = across[:, :, radius:radius + height] * half[radius]
    for i in range(radius):
        out.add_(across[:, :, i:i + height], alpha=half[i])
        out.add_(across[:, :, 2 * radius - i:2 * radius - i + height], alpha=half[i])
    return out


def _trimmed(weights: Tensor) -> Tensor:
    """Without the outer taps that are below float32's resolution in every row: half of them for an average width."""
    needed = (weights.amax(0) > NEGLIGIBLE).nonzero()
    first = int(needed[0])
    return weights[:, first:weights.shape[1] - first]
