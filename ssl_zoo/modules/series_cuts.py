"""Pieces of series ``[B, T, C]`` whose ends may be missing (NaN): ``utils.py`` of zhihanyue/ts2vec@b0088e14."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.augmentations.rng import BatchRNG


def at(series: Tensor, steps: Tensor) -> Tensor:
    """The ``steps`` ``[B, S]`` of each series: ``[B, S, C]``."""
    return series.gather(1, steps[..., None].expand(-1, -1, series.shape[2]))


def centred(series: Tensor) -> Tensor:
    """What is there of each series in the middle, an odd missing step behind it (``centerize_vary_length_series``)."""
    there = ~series.isnan().all(2)  # [B, T]
    before, behind = (x.int().argmax(1) for x in (there, there.flip(1)))  # [B] missing steps
    shift = torch.div(before + behind, 2, rounding_mode="floor") - before
    steps = torch.arange(series.shape[1], device=series.device)
    return at(series, (steps - shift[:, None]) % series.shape[1])


def sections(series: Tensor, number: int) -> Tensor:
    """Series cut into ``number`` pieces, the shorter ones of which miss a step at their end (``split_with_nan``).

    Returns:
        ``[number, B, ceil(T / number), C]``.
    """
    pieces = series.tensor_split(number, 1)
    return torch.stack(
        [F.pad(piece, (0, 0, 0, pieces[0].shape[1] - piece.shape[1]), value=torch.nan) for piece in pieces]
    )


def one_section(series: Tensor, longest: int, rng: BatchRNG) -> Tensor:
    """Of each series longer than ``2 * longest`` one of its ``T // longest`` pieces that is not missing as a whole.

    The authors train on all pieces as on series of their own, in any order; here each visit of a series draws one.
    """
    number = series.shape[1] // longest
    if number < 2:
        return series
    pieces = sections(series, number)  # [S, B, T / S, C]
    there = ~pieces.isnan().flatten(2).all(2)  # [S, B]
    drawn = rng.sample("section").uniform("section").to(series.device)
    place = (drawn * there.sum(0)).long()  # [B] among those
    chosen = (there & (there.cumsum(0) - 1 == place)).int().argmax(0)
    return pieces[chosen, torch.arange(len(series), device=series.device)]


class Crops(NamedTuple):
    """Two pieces of each series that have ``overlap`` steps in common: the last of the one, the first of the other."""

    first: Tensor  # [B, S1, C]
    second: Tensor  # [B, S2, C]
    overlap: int


def overlapping(series: Tensor, rng: BatchRNG, least: int) -> Crops:
    """The crops of TS2Vec (Sec. 3.2; ``TS2Vec.fit``): of the same lengths for a batch, of each series at its own place.

    Args:
        series: ``[B, T, C]``.
        rng: Of the batch; the lengths are drawn for all processes together.
        least: Steps that the pieces have in common at least; 2 or more.

    Raises:
        ValueError: If the series are shorter than that.
    """
    total = series.shape[1]
    if total < least:
        raise ValueError(
            f"series of {total} steps are too short for crops that have {least} in common; lower "
            "method.temporal_unit, or take longer series"
        )
    draw = rng.host.shared("crop")
    overlap = least + int(draw.integers("length", total - least + 1))
    left = int(draw.integers("left", total - overlap + 1))
    begin = int(draw.integers("begin", left + 1))
    end = left + overlap + int(draw.integers("end", total - left - overlap + 1))
    place = rng.sample("crop").integers("place", total - (end - begin) + 1).to(series.device)  # [B] of `begin`

    def piece(first: int, last: int) -> Tensor:
        return at(series, (place + first - begin)[:, None] + torch.arange(last - first, device=series.device))

    return Crops(piece(begin, left + overlap), piece(left, end), overlap)
