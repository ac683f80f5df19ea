"""Colours as classes: soft targets, classes by their rarity, and what a distribution over colours looks like."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

PIXELS = 2**16  # whose distances to all bins are held at a time: 80 MB for 313


@dataclass(frozen=True)
class SoftBins:
    """The few bins that a colour belongs to, nearest first; equally near ones in the order of the bins."""

    index: Tensor  # [B, K, h, w] int64
    weight: Tensor  # [B, K, h, w], sums to 1 over K

    def dense(self, bins: int) -> Tensor:
        """``[B, bins, h, w]``, 0 for all other bins."""
        shape = (self.index.shape[0], bins, *self.index.shape[2:])
        return self.weight.new_zeros(shape).scatter_(1, self.index, self.weight)


@full_precision
@torch.no_grad()
def soft_bins(ab: Tensor, centres: Tensor, neighbours: int = 10, sigma: float = 5.0) -> SoftBins:
    """Gaussian weights of the nearest bins: Sec. 2.2 of https://arxiv.org/abs/1603.08511.

    ``NNEncode`` of resources/caffe_traininglayers.py in richzhang/colorization@815b3f7.

    Args:
        ab: ``[B, 2, h, w]`` colours in the units of L*a*b*.
        centres: ``[Q, 2]`` of the bins.
        neighbours: K, at most Q.
        sigma: Of the Gaussian, in the same units.
    """
    points = ab.movedim(1, -1).flatten(0, 2)                                         # [N, 2]
    near, which = [], []
    for part in points.split(PIXELS):
        squares = (part[:, None] - centres.to(part)).square().sum(2)                 # [n, Q]
        distance, index = squares.sort(dim=1, stable=True)
        near.append(distance[:, :neighbours])
        which.append(index[:, :neighbours])
    weight = F.softmax(torch.cat(near) / (-2 * sigma**2), dim=1)                     # [N, K]
    shape = (ab.shape[0], *ab.shape[2:], -1)
    return SoftBins(torch.cat(which).view(shape).movedim(-1, 1), weight.view(shape).movedim(-1, 1))


@full_precision
def rarity(prior: Tensor, uniform: float = 0.5) -> Tensor:
    """Weight of each bin, eq. 4 of the paper: ``1 / ((1 - u) p + u / Q)``, whose mean under ``p`` is 1.

    ``PriorFactor``: bins that never occur count neither for Q nor for the mean, and weigh as much as the rarest could.

    Args:
        prior: ``[Q]`` shares of the bins, of sum 1.
        uniform: u, the share of the uniform distribution (0.5), above 0 if some bins never occur.
    """
    weight = 1 / ((1 - uniform) * prior + uniform / (prior > 0).sum().to(prior.dtype))
    return weight / (prior * weight).sum()


@full_precision
def rebalanced_divergence(logits: Tensor, target: SoftBins, weight: Tensor) -> Tensor:
    """KL divergence from the soft targets, summed over the pixels of an image, mean over images; eq. 2 of the paper.

    softmax_cross_entropy_loss_layer.cpp and ``ClassRebalanceMultLayer``: the weights multiply gradients alone, and the
    value is that without them.

    Args:
        logits: ``[B, Q, h, w]``.
        target: Of the same pixels.
        weight: ``[B, h, w]`` of each pixel's gradient.

    Returns:
        Scalar in nats.
    """
    surprise = -(target.weight * F.log_softmax(logits, dim=1).gather(1, target.index)).sum(1)        # [B, h, w]
    divergence = surprise + torch.special.xlogy(target.weight, target.weight).sum(1)
    value, weighted = (x.sum((1, 2)).mean() for x in (divergence, weight * divergence))
    return weighted + (value - weighted).detach()


@full_precision
def colour_rows(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of hard bins, mean over the pixels of each image.

    ``loss_G_CE`` of models/pix2pix_model.py in richzhang/colorization-pytorch@66a1cb2.

    Args:
        logits: ``[B, Q, h, w]``.
        target: ``[B, h, w]`` bins.

    Returns:
        ``[B]`` in nats.
    """
    return F.cross_entropy(logits, target, reduction="none").mean((1, 2))


@full_precision
def regression_rows(predicted: Tensor, ab: Tensor) -> Tensor:
    """``|da| + |db|``, mean over the pixels of each image: ``loss_G_L1_reg`` there, without its factor 10.

    Args:
        predicted, ab: ``[B, 2, H, W]`` in the same unit, there a 110th of that of L*a*b*.

    Returns:
        ``[B]``.
    """
    return (predicted - ab).abs().sum(1).mean((1, 2))


@full_precision
def annealed_mean(logits: Tensor, centres: Tensor, temperature: float = 0.38) -> Tensor:
    """The colours of a distribution, eq. 5 of the paper: the mean of the bins under ``softmax(logits / temperature)``.

    Args:
        logits: ``[B, Q, h, w]``.
        centres: ``[Q, 2]``.
        temperature: Above 0; towards 0 it is the likeliest bin, 1 the mean.

    Returns:
        ``[B, 2, h, w]`` in the unit of ``centres``.
    """
    return torch.einsum("bqhw,qc->bchw", F.softmax(logits / temperature, dim=1), centres.to(logits.dtype))
