"""What is made of the features of steps: windows of them, and features of long series piece by piece.

``TS2Vec.encode`` of ``ts2vec.py`` in zhihanyue/ts2vec@b0088e14.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Encoder = Callable[[Tensor], Tensor]  # [B, T, C] -> [B, T, F]


def pooled(steps: Tensor, window: int) -> Tensor:
    """The largest feature of the ``window`` steps around each: ``[B, T, F]`` -> same."""
    out = F.max_pool1d(steps.transpose(1, 2), window, 1, window // 2).transpose(1, 2)
    return out[:, : steps.shape[1]]  # an even window gives a step too many


def multiscale(steps: Tensor) -> Tensor:
    """:func:`pooled` in windows of 3, 5, 9, ... side by side, while half of one is shorter than the series.

    Returns:
        ``[B, T, F * windows]``.
    """
    halves = [2**p for p in range(steps.shape[1].bit_length()) if 2**p + 1 < steps.shape[1]]
    return torch.cat([pooled(steps, 2 * half + 1) for half in halves], 2)


def sliding(
    encoder: Encoder, series: Tensor, length: int, padding: int, causal: bool = False, batch: int = 256
) -> Tensor:
    """Features of pieces of ``length`` steps, each of which sees ``padding`` steps before it, and behind it.

    Args:
        encoder: Gives the features of each step.
        series: ``[B, T, C]``; what a piece would see before the first and behind the last step is missing (NaN).
        length: Of a piece.
        padding: Steps beside it.
        causal: Whether only those before it are seen.
        batch: Pieces that pass together: bounds memory, changes no number.

    Returns:
        ``[B, S, F]``, S being T rounded up to whole pieces.
    """
    total, behind = series.shape[1], 0 if causal else padding
    pieces = -(-total // length)
    around = F.pad(series, (0, 0, padding, pieces * length - total + behind), value=torch.nan)
    windows = around.unfold(1, padding + length + behind, length).movedim(3, 2)  # [B, P, S, C], a view
    found = []
    for row in windows:
        parts = [encoder(part)[:, padding : padding + length] for part in row.split(batch)]
        found.append(torch.cat(parts).flatten(0, 1))
    return torch.stack(found)
