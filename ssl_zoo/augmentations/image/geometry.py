"""Crops, resizes, flips and quarter turns.

Operations with ``crops = True`` also take one image ``[1, C, H, W]`` of any size, uint8 or uint16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor, nn

from ssl_zoo.augmentations.accelerated import kernels_for
from ssl_zoo.augmentations.image.bounded import bounded_boxes
from ssl_zoo.augmentations.image.common import apply_to, full_precision
from ssl_zoo.augmentations.image.sampling import check_interpolation, resample, resampling_matrix, resize
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require
from ssl_zoo.sides import Side, height_width

ATTEMPTS = 10   # torchvision's RandomResizedCrop gives up after ten boxes that do not fit
MISFITS = ("redraw", "clamp", "bounded")


def probability(p: float) -> float:
    """Return ``p`` if it is a probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p is {p}, it must lie in [0, 1]")
    return p


def interval(name: str, values: Sequence[float], low: float = 0.0, high: float = math.inf) -> tuple[float, float]:
    """Return ``values`` as a pair if it is one, in order and within [low, high]."""
    pair = tuple(float(value) for value in values)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"{name} is {list(values)}, it must be [low, high] with {low:g} <= low <= high <= {high:g}")
    return pair


@register("image/random_resized_crop")
class RandomResizedCrop(nn.Module):
    """A random box resized to the view (torchvision ``RandomResizedCrop``; the box is that of Inception training).

    Reports ``box``: ``[B, 4]`` top, left, height, width in pixels of the image.

    Args:
        size: side of the result, or its height and width; a view gives its own.
        scale: range of the share of the image's area, uniform.
        ratio: range of width / height, log-uniform; of a view that is no square, relative to the view's own, so that
            what is seen is stretched no more than in a square.
        interpolation: bilinear or bicubic.
        antialias: widen the kernel where the box is larger than the view; false: TensorFlow's default, and BYOL's.
        misfit: a box that does not fit into the image: ``redraw``, ten times, then the largest central one; or
            ``clamp``: the first is cut to the sides of the image (BYOL, deepmind-research byol/utils/dataset.py). Or
            ``bounded``: the height is drawn so that the box fits, and ratios uniformly (TensorFlow's, SimCLR).
    """

    crops = True
    flips = True   # takes ``mirrored``

    def __init__(self, size: Side, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3),
                 interpolation: str = "bilinear", antialias: bool = True, misfit: str = "redraw"):
        super().__init__()
        require("misfit", misfit, MISFITS)
        self.size = height_width(size)
        self.scale = interval("scale", scale)
        low, high = interval("ratio", ratio, low=1e-6)
        own = self.size[1] / self.size[0]
        self.ratio = low * own, high * own
        self.interpolation = check_interpolation(interpolation)
        self.antialias = antialias
        self.misfit = misfit
        self.clamps = misfit == "clamp"

    @full_precision
    def forward(self, x: Tensor, draw: Draw, mirrored: Tensor | None = None) -> Tensor:
        """``mirrored [B]``: also flip these samples left to right, which costs nothing here."""
        if not x.is_floating_point():
            return self.cut(x, draw)
        box = self.boxes(draw, *x.shape[-2:])
        draw.report("box", box)
        kernels = kernels_for(x)
        down, across = self.size
        if kernels is not None and x.shape[1] in (1, 3) and down == across:
            return kernels.crop(x, box, down, self.interpolation, mirrored, self.antialias)
        top, left, height, width = box.unbind(1)
        how = self.interpolation
        rows = resampling_matrix(top, height, x.shape[-2], down, how, antialias=self.antialias)
        columns = resampling_matrix(left, width, x.shape[-1], across, how, mirrored, self.antialias)
        x = resample(x, rows, columns)
        return x.clamp_(0, 1) if self.interpolation == "bicubic" else x

    def cut(self, x: Tensor, draw: Draw) -> Tensor:
        """One decoded image in a worker, of any type: cutting first is cheaper than a matrix for all of it."""
        box = self.boxes(draw, *x.shape[-2:])
        draw.report("box", box)
        top, left, height, width = box[0].tolist()
        part = x[..., top:top + height, left:left + width]
        return resize(part, *self.size, self.interpolation, self.antialias)

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than the view the box of the first sample is, on its tighter side."""
        sides = self.boxes(draw, height, width)[0, 2:].tolist()
        return min(side / own for side, own in zip(sides, self.size, strict=True))

    def boxes(self, draw: Draw, height: int, width: int) -> Tensor:
        """``[B, 4]`` int64 boxes; float64 inside, so that devices round alike."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        numbers, place = draw.uniform("box", 1 if self.clamps else ATTEMPTS, 2), draw.uniform("place", 2)
        if self.misfit == "bounded":
            return bounded_boxes(numbers, place, height, width, self.scale, self.ratio)
        kernels = kernels_for(numbers)
        if kernels is not None:
            least, more = (height * width * part for part in (self.scale[0], self.scale[1] - self.scale[0]))
            limits = (least, more, low, high - low, *map(float, self._central(height, width)))
            return kernels.boxes(numbers, place, height, width, limits, self.clamps)
        share, shape = numbers.double().unbind(2)                                                # 2 x [B, 10]
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * share)
        ratio = torch.exp(low + (high - low) * shape)
        h, w = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
        if self.clamps:
            h, w = h.clamp(1, height), w.clamp(1, width)
        fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
        first = fits.int().argmax(dim=1, keepdim=True)
        h, w = h.gather(1, first), w.gather(1, first)                                            # [B, 1]
        place = place.double()
        top = (place[:, :1] * (height - h + 1)).floor()
        left = (place[:, 1:] * (width - w + 1)).floor()
        found = fits.any(dim=1, keepdim=True)
        central = self._central(height, width)
        sides = [torch.where(found, x, float(y)) for x, y in zip((top, left, h, w), central, strict=True)]
        return torch.cat(sides, dim=1).long()

    def _central(self, height: int, width: int) -> list[int]:
        """The largest central box of an allowed ratio, for samples whose ten boxes all fell outside."""
        low, high = self.ratio
        h, w = height, width
        if width / height < low:
            h = round(width / low)
        elif width / height > high:
            w = round(height * high)
        return [(height - h) // 2, (width - w) // 2, h, w]


@register("image/random_crop_pad")
class RandomCropPad(nn.Module):
    """Zeros around the image, then a random window of the view's size (torchvision ``RandomCrop(size, padding)``).

    Reports ``corner``: ``[B, 2]`` top and left of the window in the padded image.
    """

    crops = True

    def __init__(self, size: Side, padding: int = 4):
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding is {padding}, it must not be negative")
        self.size = height_width(size)
        self.padding = padding

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        spare = [side + 2 * self.padding - own for side, own in zip(x.shape[-2:], self.size, strict=True)]
        if min(spare) < 0:
            raise ValueError(f"image/random_crop_pad: an image of {x.shape[-2]}x{x.shape[-1]} padded by {self.padding} "
                             f"is smaller than the view ({self.size[0]}x{self.size[1]}); use image/random_resized_crop")
        place = draw.uniform("place", 2).double()
        top, left = ((place[:, axis] * (spare[axis] + 1)).floor().long() for axis in (0, 1))     # [B]
        draw.report("corner", torch.stack((top, left), dim=1))
        x = F.pad(x, [self.padding] * 4)
        return _windows(x, top, left, *self.size)


def _windows(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """``[B, C, height, width]`` of each sample, from ``top [B]`` and ``left [B]`` on."""
    down, across = (torch.arange(side, device=x.device) for side in (height, width))
    rows = (top.view(-1, 1) + down).view(-1, 1, height, 1)                                       # [B, 1, h, 1]
    x = x.gather(2, rows.expand(-1, x.shape[1], -1, x.shape[3]))
    columns = (left.view(-1, 1) + across).view(-1, 1, 1, width)                                  # [B, 1, 1, w]
    return x.gather(3, columns.expand(-1, x.shape[1], height, -1))


@register("image/resize_random_crop")
class ResizeRandomCrop(nn.Module):
    """Shorter side to ``shorter`` pixels, then a random window of the view's size (torchvision ``Resize(shorter)``,
    ``RandomCrop(size)``).

    Reports ``corner``: ``[B, 2]`` top and left of the window in the resized image.
    """

    crops = True

    def __init__(self, size: Side, shorter: int, interpolation: str = "bilinear"):
        super().__init__()
        self.size = height_width(size)
        self.shorter = shorter
        self.interpolation = check_interpolation(interpolation)

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than needed an image is."""
        return min(height, width) / self.shorter

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        if self.shorter < max(self.size):
            raise ValueError(f"image/resize_random_crop: shorter is {self.shorter}, and the window {self.size[0]}x"
                             f"{self.size[1]}; set shorter to at least {max(self.size)}")
        height, width = x.shape[-2:]
        # The longer side is cut to an integer, as torchvision's Resize does.
        down, across = (int(self.shorter * side / min(height, width)) for side in (height, width))
        x = resize(x, down, across, self.interpolation)
        place = draw.uniform("place", 2).double()
        top, left = ((place[:, axis] * (x.shape[2 + axis] - self.size[axis] + 1)).floor().long() for axis in (0, 1))
        draw.report("corner", torch.stack((top, left), dim=1))
        return _windows(x, top, left, *self.size)


@register("image/resize")
class Resize(nn.Module):
    """The whole image at the view's size, a square's or another (torchvision ``Resize((height, width))``)."""

    crops = True

    def __init__(self, size: Side, interpolation: str = "bilinear"):
        super().__init__()
        self.size = height_width(size)
        self.interpolation = check_interpolation(interpolation)

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than the view an image is, on its tighter side."""
        return min(height / self.size[0], width / self.size[1])

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return resize(x, *self.size, self.interpolation)


@register("image/center_crop")
class CenterCrop(nn.Module):
    """The middle of the image at the view's size, with zeros where it is smaller (torchvision ``CenterCrop``)."""

    crops = True

    def __init__(self, size: Side):
        super().__init__()
        self.size = height_width(size)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return TF.center_crop(x, list(self.size))


@register("image/resize_center_crop")
class ResizeCenterCrop(nn.Module):
    """The usual evaluation view: shorter side to ``size / fraction`` (256 for 224), then the middle.

    A view that is no square is covered so too, by an image of its own shape of which each side is ``1 / fraction`` of
    the view's.
    """

    crops = True

    def __init__(self, size: Side, fraction: float = 0.875, interpolation: str = "bilinear"):
        super().__init__()
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"fraction is {fraction}, it must lie in (0, 1]")
        self.size = height_width(size)
        self.least = [round(side / fraction) for side in self.size]
        self.interpolation = check_interpolation(interpolation)

    def reduction(self, height: int, width: int, draw: Draw) -> float:
        """How many times larger than needed an image is, on its tighter side."""
        return min(height / self.least[0], width / self.least[1])

    @full_precision
    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        (height, width), (down, across) = x.shape[-2:], self.least
        # The side that is left over is cut to an integer, as torchvision's Resize does.
        if height * across > width * down:
            down = int(across * height / width)
        else:
            across = int(down * width / height)
        return TF.center_crop(resize(x, down, across, self.interpolation), list(self.size))


@register("image/flip")
class Flip(nn.Module):
    """Left becomes right with probability ``p`` (torchvision ``RandomHorizontalFlip``).

    Reports ``flipped``: ``[B]`` bool.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability(p)

    def flipped(self, draw: Draw) -> Tensor:
        """``[B]`` whom it is done to; a crop right before it does it on the way (:class:`RandomResizedCrop`)."""
        flipped = draw.uniform("apply") < self.p
        draw.report("flipped", flipped)
        return flipped

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        return apply_to(x, self.flipped(draw), lambda images: images.flip(-1))


@register("image/vertical_flip")
class VerticalFlip(nn.Module):
    """Up becomes down with probability ``p`` (torchvision ``RandomVerticalFlip``).

    Reports ``flipped``: ``[B]`` bool.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability(p)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        flipped = draw.uniform("apply") < self.p
        draw.report("flipped", flipped)
        return apply_to(x, flipped, lambda images: images.flip(-2))


@register("image/rotate90")
class Rotate90(nn.Module):
    """0 to 3 quarter turns counter-clockwise, equally likely (RotNet, https://arxiv.org/abs/1803.07728).

    Reports ``turns``: ``[B]`` int64 in 0..3, the label of the rotation task.
    """

    def __init__(self) -> None:   # without it the options would be those of nn.Module
        super().__init__()

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        if x.shape[-2] != x.shape[-1]:
            raise ValueError(f"image/rotate90: a quarter turn needs square images, these are "
                             f"{x.shape[-2]}x{x.shape[-1]}; put image/resize or a crop before it")
        turns = draw.integers("turns", 4)
        draw.report("turns", turns)
        k = turns.view(-1, 1, 1, 1)
        x = torch.where(k % 2 == 1, x.transpose(-1, -2), x)
        x = torch.where((k == 1) | (k == 2), x.flip(-2), x)
        return torch.where(k >= 2, x.flip(-1), x)
