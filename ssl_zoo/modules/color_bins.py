"""Bins of the a*b* plane."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.losses.colorization import SoftBins

STEP = 10
AB = 110  # largest |a| and |b| of the square of bins, and the unit of views
# The bins of the authors' pts_in_hull.npy, b from ... to ... for each a. 309 of them are the corners of the cells that
# sRGB's gamut touches; (40, 90), (100, -90), (100, -10) and (100, 0) are theirs besides.
GAMUT = {
    -90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100), -30: (-50, 100),
    -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90), 30: (-90, 90), 40: (-100, 90),
    50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70), 90: (-110, 70), 100: (-90, 0),
}  # fmt: skip


def gamut_bins() -> Tensor:
    """``[313, 2]`` centres of the bins of CIC (https://arxiv.org/abs/1603.08511), in its order."""
    rows = [(a, b) for a, (low, high) in GAMUT.items() for b in range(low, high + STEP, STEP)]
    return torch.tensor(rows, dtype=torch.float32)


def square_bins() -> Tensor:
    """``[529, 2]`` centres of the bins of richzhang/colorization-pytorch: 23 x 23, a before b."""
    side = torch.arange(-AB, AB + STEP, STEP, dtype=torch.float32)
    return torch.cartesian_prod(side, side)


BINS = {"eccv16": gamut_bins, "siggraph17": square_bins}


def square_index(ab: Tensor) -> Tensor:
    """The bin of each colour, ``encode_ab_ind`` there: ``[B, 2, h, w]`` in L*a*b* units to ``[B, h, w]``."""
    a, b = ((ab + AB) / STEP).round().long().clamp(0, 2 * AB // STEP).unbind(1)
    return a * (2 * AB // STEP + 1) + b


def counted(target: SoftBins, bins: int) -> Tensor:
    """``[Q]`` sum of the weights of each bin over all pixels."""
    weight = target.weight.flatten()
    return weight.new_zeros(bins).index_add_(0, target.index.flatten(), weight)
