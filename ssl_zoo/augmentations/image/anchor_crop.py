"""Exemplar-CNN's crop: around a place of the image that stays the same, moved and scaled a little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.image.common import full_precision
from ssl_zoo.augmentations.image.geometry import interval
from ssl_zoo.augmentations.image.sampling import resample
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.errors import require

ANCHORS = ("edges", "centre")


def crop_centres(anchor: Tensor, shift: Tensor, sides: Sequence[Tensor | int], side: int) -> Tensor:
    """Centres of crops near their anchors: ``sampling_anchor_gauss`` in transformations.py of EricArazo/ExemplarCNN.

    Args:
        anchor: ``[B, 2]`` x and y.
        shift: ``[B, 2]`` how far the crop is moved from there.
        sides: Width and height of the image, of each ``[B]`` or of all.
        side: Of the crop, which does not leave the image.

    Returns:
        ``[B, 2]`` int64 x and y; the crop begins ``side // 2`` before.
    """
    place = (anchor + shift).unbind(1)
    held = []
    for at, length in zip(place, sides, strict=True):
        last = torch.as_tensor(length, dtype=at.dtype, device=at.device) - side / 2
        held.append(torch.minimum(at, last).clamp(min=side / 2).round())
    return torch.stack(held, dim=1).long()


def edge_places(x: Tensor) -> Tensor:
    """``[B, 2]`` x and y of a pixel of each image, drawn by the strength of the edge there (``Get_coord_from_mask``).

    The number that decides comes from the pixels alone: an image has the same place in every view and epoch. All
    arithmetic is on whole numbers, so that every device finds the same; images without an edge have their centre.
    """
    grey = (x * 255).round().long().sum(1)                                                       # [B, H, W]
    height, width = grey.shape[1:]
    padded = F.pad(grey[:, None].to(x.dtype), [1] * 4, mode="replicate")[:, 0].long()
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    strength = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    strength = strength.abs() + (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]).abs()
    sums = strength.flatten(1).cumsum(1)                                                         # [B, H * W]
    weight = torch.arange(1, height * width + 1, device=x.device)
    draw = Draw(stream_key(0, "anchor", 0), (grey.flatten(1) * weight).sum(1))
    wanted = draw.integers("place", 1 << 31) * sums[:, -1] >> 31                                 # [B] below the sum
    index = (sums <= wanted[:, None]).sum(1)
    index = torch.where(sums[:, -1] > 0, index, height // 2 * width + width // 2)
    return torch.stack((index % width, index // width), dim=1)


def window_matrix(first: Tensor, scaled: Tensor, source: int, size: int) -> Tensor:
    """Rows of weights that resize ``source`` pixels to ``scaled`` and keep ``size`` of them, from ``first`` on.

    The weights are those of ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``.

    Args:
        first, scaled: ``[B]`` whole numbers.

    Returns:
        ``[B, size, source]`` float32, each row sums to 1.
    """
    reduction = (source / scaled.double()).view(-1, 1, 1)
    centre = (first.view(-1, 1, 1) + torch.arange(size, device=first.device).view(1, -1, 1) + 0.5) * reduction
    distance = (torch.arange(source, device=first.device) + 0.5 - centre).float().abs()          # [B, size, source]
    weight = (1.0 - distance / reduction.float().clamp(min=1.0)).clamp_(min=0.0)
    return weight / weight.sum(-1, keepdim=True)


@register("image/anchor_crop")
class AnchorCrop(nn.Module):
    """Scale the image and cut the view around its anchor (``Scale_images_and_anchor``, ``anchor_crop_gauss``).

    The paper (https://arxiv.org/abs/1406.6909, Sec. 3) takes patches of 32 pixels out of larger images. An image that
    would become smaller than the view is scaled to it at least.

    Args:
        size: side of the view; a view gives its own.
        scale: range of the factor by which the image is scaled, uniform.
        shift: standard deviation of the crop's place around its anchor, of the view's side.
        anchor: ``edges``: a place with an edge, always the same of an image (:func:`edge_places`); ``centre``.
    """

    crops = True

    def __init__(self, size: int, scale: Sequence[float] = (0.7, 1.4), shift: float = 0.2,
                 anchor: Literal["edges", "centre"] = "edges"):
        super().__init__()
        if shift < 0:
            raise ValueError(f"shift is {shift}, it must not be negative")
        require("anchor", anchor, ANCHORS)
        self.size, self.shift, self.anchor = size, shift, anchor
        self.scale = interval("scale", scale, low=1e-3)

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        if not x.is_floating_point():
            most = torch.iinfo(x.dtype).max
            return (self(x.float() / most, draw) * most).round().to(x.dtype)
        height, width = x.shape[-2:]
        least = self.size / min(height, width)
        low, high = max(self.scale[0], least), max(self.scale[1], least)
        factor = low + (high - low) * draw.uniform("scale").double()                             # [B]
        scaled = [(side * factor).round() for side in (width, height)]                           # 2 x [B]
        anchor = (self.anchors(x).double() * factor[:, None]).round()                            # of the scaled image
        shift = self.shift * self.size * draw.normal("shift", 2).double()                        # [B, 2]
        left, top = (crop_centres(anchor, shift, scaled, self.size) - self.size // 2).unbind(1)
        rows = window_matrix(top, scaled[1], height, self.size)
        return resample(x, rows, window_matrix(left, scaled[0], width, self.size))

    def anchors(self, x: Tensor) -> Tensor:
        """``[B, 2]`` x and y in pixels of the image."""
        if self.anchor == "edges":
            return edge_places(x)
        height, width = x.shape[-2:]
        halves = [torch.full(x.shape[:1], side // 2, device=x.device) for side in (width, height)]
        return torch.stack(halves, dim=1)
