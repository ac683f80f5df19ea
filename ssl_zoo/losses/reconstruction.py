"""Losses of masked images: pixels of hidden patches, predicted from those that can be seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


def patchify(images: Tensor, size: int) -> Tensor:
    """Cut images into patches: ``patchify`` of models_mae.py, facebookresearch/mae@efb2a80.

    Args:
        images: ``[B, C, H, W]``, sides multiples of ``size``.
        size: Side p of a patch in pixels.

    Returns:
        ``[B, N, p * p * C]``, patches row by row; within one, row by row of pixels, channels last.
    """
    if images.shape[2] % size or images.shape[3] % size:
        raise ValueError(f"images of {images.shape[2]} x {images.shape[3]} px do not divide into patches of {size} px")
    cells = images.unfold(2, size, size).unfold(3, size, size)  # [B, C, h, w, p, p]
    return cells.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, size: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`: ``[B, N, p * p * C]`` -> ``[B, C, H, W]`` of ``grid`` rows and columns."""
    cells = patches.unflatten(2, (size, size, -1)).unflatten(1, grid)  # [B, h, w, p, p, C]
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def repaint(
    patches: Tensor, pred: Tensor, mask: Tensor, size: int, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Images as a network sees them, hidden patches 0, and with its predictions in their places.

    Args:
        patches, pred: ``[B, N, P]`` true and predicted, as :func:`patchify` cuts them.
        mask: ``[B, N]`` bool, true = hidden.
        size, grid: As in :func:`unpatchify`.

    Returns:
        Two of ``[B, C, H, W]``.
    """
    hidden = mask.unsqueeze(-1)
    seen, painted = patches.masked_fill(hidden, 0.0), torch.where(hidden, pred, patches)
    return unpatchify(seen, size, grid), unpatchify(painted, size, grid)


class Standard(NamedTuple):
    """Patches with mean 0 and variance 1 each, and how to undo it: ``patches * deviation + mean``."""

    patches: Tensor  # [B, N, P]
    mean: Tensor  # [B, N, 1]
    deviation: Tensor  # [B, N, 1]


@full_precision
def standardize(patches: Tensor) -> Standard:
    """Each patch by its own mean and *unbiased* variance + 1e-6 (``norm_pix_loss``, MAE Sec. 4.1).

    Args:
        patches: ``[B, N, P]``.
    """
    mean = patches.mean(-1, keepdim=True)
    deviation = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    return Standard((patches - mean) / deviation, mean, deviation)


@full_precision
def masked_square_error(p: Tensor, target: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Mean square error of hidden patches: ``forward_loss`` of models_mae.py, facebookresearch/mae@efb2a80.

    Args:
        p: ``[B, N, P]`` predictions of all patches.
        target: ``[B, N, P]``.
        mask: ``[B, N]``, true or 1 = hidden; others do not count.
        count: Number of hidden patches of a whole batch; with several processes their mean over processes.

    Returns:
        Sum over hidden patches of each one's mean over its values, divided by ``count``.
    """
    return _masked(((p - target) ** 2).mean(-1), mask, count)


@full_precision
def masked_absolute_error(p: Tensor, target: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Mean absolute error of hidden patches: ``SimMIM.forward`` of simmim.py, microsoft/SimMIM@0e71746.

    Without the 1e-5 that the authors add to the number of hidden pixels. Arguments as in :func:`masked_square_error`.
    """
    return _masked((p - target).abs().mean(-1), mask, count)


def _masked(error: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    return (error * mask).sum() / count.to(error.dtype)
