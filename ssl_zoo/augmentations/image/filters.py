"""Noise and edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import full_precision, noise, per_channel
from ssl_zoo.augmentations.image.geometry import interval, probability
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


@register("image/gaussian_noise")
class GaussianNoise(nn.Module):
    """Add normal noise, independent for each pixel and channel, with probability ``p``.

    Args:
        sigma: standard deviation in pixel values of [0, 1], or the [low, high] from which each sample draws its own.
        p: share of the samples.
        clamp: cut the result to [0, 1].
    """

    def __init__(self, sigma: float | Sequence[float] = (0.0, 0.1), p: float = 0.5, clamp: bool = True):
        super().__init__()
        self.sigma = interval("sigma", sigma if isinstance(sigma, Sequence) else (sigma, sigma))
        self.p = probability(p)
        self.clamp = clamp

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * draw.uniform("sigma")
        sigma = torch.where(draw.uniform("apply") < self.p, sigma, 0.0).to(x.dtype).view(-1, 1, 1, 1)
        y = torch.addcmul(x, noise(x, draw), sigma)
        return torch.where(sigma == 0.0, x, y.clamp_(0.0, 1.0)) if self.clamp else y


@register("image/sobel")
class Sobel(nn.Module):
    """``[B, C, H, W]`` to ``[B, 2, H, W]``: mean of the channels, then left minus right and above minus below
    (DeepCluster, facebookresearch/deepcluster ``models/alexnet.py``). The last operation of a view.

    Args:
        mean, std: channels are normalised first, as the authors' are (one number, or one for each channel); the view
            itself then needs ``normalize: null``.
    """

    per_channel = ("mean", "std")
    other_channels = True

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0):
        super().__init__()
        if min(std if isinstance(std, Sequence) else [std]) <= 0:
            raise ValueError(f"std is {std}, it must be positive")
        self.mean, self.std = mean, std

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        x = (x - per_channel("image/sobel: mean", self.mean, x)) / per_channel("image/sobel: std", self.std, x)
        grey = F.pad(x.mean(dim=1, keepdim=True), [1] * 4)                                       # [B, 1, H + 2, W + 2]
        down = grey[..., :-2, :] + 2.0 * grey[..., 1:-1, :] + grey[..., 2:, :]
        across = grey[..., :-2] + 2.0 * grey[..., 1:-1] + grey[..., 2:]
        return torch.cat((down[..., :-2] - down[..., 2:], across[..., :-2, :] - across[..., 2:, :]), dim=1)
