"""Resizing as a matrix for each axis and each sample, as torch and Pillow compute it (with antialiasing)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.errors import require


def check_interpolation(interpolation: str) -> str:
    """Return ``interpolation`` if it is one of bilinear and bicubic."""
    require("interpolation", interpolation, _KERNELS)
    return interpolation


def resize(x: Tensor, height: int, width: int, interpolation: str, antialias: bool = True) -> Tensor:
    """``[B, C, H, W]``, float in [0, 1], uint8 or uint16, resized; overshoot of the bicubic kernel is cut."""
    if x.shape[-2:] == (height, width):
        return x
    if not antialias:
        return _sampled(x, height, width, interpolation)
    if x.dtype == torch.uint16 or x.dtype == torch.uint8 and interpolation == "bicubic":
        # The integer kernel also cuts between the two axes, which moves sharp edges by up to 15 grey values: a worker
        # would not show the network what the batch on the device does.
        return _whole(_interpolate(x.float(), height, width, interpolation), x.dtype)
    x = _interpolate(x, height, width, interpolation)
    return x.clamp_(0, 1) if interpolation == "bicubic" else x


def _interpolate(x: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    return F.interpolate(x, size=(height, width), mode=interpolation, align_corners=False, antialias=True)


def _sampled(x: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """Without antialiasing, by the weights of :func:`resampling_matrix`: torch's own bicubic kernel is another one."""
    start = torch.zeros(1, device=x.device)
    rows, columns = (resampling_matrix(start, start + source, source, size, interpolation, antialias=False)
                     for source, size in zip(x.shape[-2:], (height, width), strict=True))
    if not x.is_floating_point():
        return _whole(resample(x.float(), rows, columns), x.dtype)
    return resample(x, rows, columns).clamp_(0, 1)


def _whole(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.round_().clamp_(0, torch.iinfo(dtype).max).to(dtype)


def resampling_matrix(start: Tensor, length: Tensor, source: int, size: int, interpolation: str,
                      mirrored: Tensor | None = None, antialias: bool = True) -> Tensor:
    """Rows of weights that cut ``[start, start + length)`` out of ``source`` pixels and resize it to ``size``.

    The weights are those of ``torch.nn.functional.interpolate(antialias=True)`` on the crop alone (aten
    ``UpSampleKernel.cpp``, after Pillow's ``Resample.c``): no pixel outside the crop contributes.

    Args:
        start, length: ``[B]`` pixels.
        mirrored: ``[B]`` bool, whose rows are written in reverse order: the result is that of a flip behind.
        antialias: False: the kernel keeps its width where pixels get fewer, as in TensorFlow's ``tf.image.resize``.

    Returns:
        ``[B, size, source]`` float32, each row sums to 1.
    """
    start, length = start.to(torch.float32).view(-1, 1, 1), length.to(torch.float32).view(-1, 1, 1)
    scale = length / size
    stretch = scale.clamp(min=1.0) if antialias else torch.ones_like(scale)
    reach = 1 if interpolation == "bilinear" else 2
    widest = max(source / size, 1.0) if antialias else 1.0   # at the strongest possible reduction
    taps = math.ceil(2 * reach * widest) + 1
    place = torch.arange(size, device=start.device).view(1, -1, 1) + 0.5                         # [1, size, 1]
    if mirrored is not None:
        place = torch.where(mirrored.view(-1, 1, 1), size - place, place)
    centre = place * scale                                                                       # [B, size, 1]
    first = (centre - reach * stretch + 0.5).floor()
    pixel = first + torch.arange(taps, device=start.device)                                      # [B, size, taps]
    weight = _KERNELS[interpolation]((pixel + 0.5).sub_(centre).div_(stretch).abs_())
    inside = (pixel >= 0) & (pixel < length)
    weight *= inside
    weight /= weight.sum(-1, keepdim=True)
    column = torch.where(inside, pixel + start, float(source)).long()   # one column more takes what lies outside
    return weight.new_zeros(len(start), size, source + 1).scatter_(2, column, weight)[..., :source]


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply ``rows [B, h, H]`` and ``columns [B, w, W]`` to ``[B, C, H, W]``."""
    batch, channels, height, _ = x.shape
    rows, columns = rows.to(x.dtype), columns.to(x.dtype)
    x = torch.bmm(x.reshape(batch, channels * height, -1), columns.transpose(1, 2))              # [B, C * H, w]
    return torch.matmul(rows.unsqueeze(1), x.view(batch, channels, height, -1))                  # [B, C, h, w]


def _triangle(distance: Tensor) -> Tensor:
    return distance.neg_().add_(1.0).clamp_(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, as Pillow and torch use it with antialiasing (without, torch's a is -3/4)."""
    near = distance < 1.0
    inner = (1.5 * distance).sub_(2.5).mul_(distance).mul_(distance).add_(1.0)
    outer = distance.clamp_(max=2.0)
    outer = (-0.5 * outer).add_(2.5).mul_(outer).sub_(4.0).mul_(outer).add_(2.0)
    return torch.where(near, inner, outer)


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}
