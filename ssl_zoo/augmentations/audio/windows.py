"""Where in a recording a view looks: windows, shifts, and how fast it plays."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.audio.waves import Waves
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require
from ssl_zoo.ranges import NonNegative, Share, Size

TAPS = 8  # samples on each side of which a new one is made
Sounds = Waves | Tensor


def whole(view: Sounds) -> Waves:
    """Windows as recordings that are all of one length."""
    if isinstance(view, Waves):
        return view
    return Waves(view, torch.full((len(view),), view.shape[-1], device=view.device))


def window(view: Sounds, name: str) -> Tensor:
    """``[B, C, T]``, for operations on windows.

    Raises:
        ValueError: If recordings were not cut yet.
    """
    if isinstance(view, Waves):
        raise ValueError(f"{name} works on windows of one length; put audio/crop before it")
    return view


def gathered(values: Tensor, place: Tensor) -> Tensor:
    """``[B, C, L]`` at ``place`` ``[B, T]``."""
    return values.gather(2, place[:, None].expand(-1, values.shape[1], -1))


@register("audio/crop")
class Crop(nn.Module):
    """A window of each recording: ``[B, C, T]``.

    Args:
        window: T, in samples.
        fill: Of recordings that are shorter: ``zeros`` around them, or ``loop``: they begin again.
        place: ``random``: anywhere; ``middle``: the same for every draw.
    """

    cuts = True

    def __init__(
        self, window: Size, fill: Literal["zeros", "loop"] = "zeros", place: Literal["random", "middle"] = "random"
    ) -> None:
        super().__init__()
        require("audio/crop: fill", fill, ("zeros", "loop"))
        require("audio/crop: place", place, ("random", "middle"))
        self.window, self.fill, self.place = window, fill, place

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        waves = whole(view)
        spare = waves.lengths - self.window  # [B], below 0 of shorter ones
        share = draw.uniform("place").double() if self.place == "random" else None
        first = self._looped(spare, waves.lengths, share) if self.fill == "loop" else _placed(spare, share)
        at = first[:, None] + torch.arange(self.window, device=first.device)  # [B, T]
        length = waves.lengths[:, None]
        if self.fill == "loop":
            return gathered(waves.values, at % length)
        inside = (at >= 0) & (at < length)
        return gathered(waves.values, torch.where(inside, at, 0)) * inside[:, None]

    def _looped(self, spare: Tensor, lengths: Tensor, share: Tensor | None) -> Tensor:
        """A shorter one may begin anywhere in itself."""
        anywhere = torch.zeros_like(lengths) if share is None else (share * lengths).long()
        return torch.where(spare < 0, anywhere, _placed(spare, share))


def _placed(spare: Tensor, share: Tensor | None) -> Tensor:
    """``[B]`` first sample of a window: below 0 where it begins before the recording."""
    least = spare.clamp(max=0)
    steps = spare.abs() + 1
    return least + (steps // 2 if share is None else (share * steps).long())


@register("audio/shift")
class Shift(nn.Module):
    """Turn each window in time: what leaves it at one end comes in at the other.

    Args:
        most: Of the window, in either direction.
        p: Share of the samples that it happens to.
    """

    def __init__(self, most: Share = 0.1, p: Share = 1.0) -> None:
        super().__init__()
        self.most, self.p = most, p

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = window(view, "audio/shift")
        length = x.shape[-1]
        share = (2 * draw.uniform("by") - 1) * self.most * (draw.uniform("hit") < self.p)
        by = (share * length).long()  # [B]
        return gathered(x, (torch.arange(length, device=x.device) - by[:, None]) % length)


@register("audio/pitch")
class Pitch(nn.Module):
    """Play each sample faster or slower, which raises or lowers its pitch: resampling by a windowed sinc.

    Before ``audio/crop`` recordings change their lengths; behind it a window keeps its length, and begins again where
    it has become too short.

    Args:
        semitones: At most so many up or down.
        p: Share of the samples that it happens to.
    """

    def __init__(self, semitones: NonNegative = 2.0, p: Share = 0.5) -> None:
        super().__init__()
        self.semitones, self.p = semitones, p

    def forward(self, view: Sounds, draw: Draw) -> Sounds:
        waves = whole(view)
        steps = (2 * draw.uniform("pitch").double() - 1) * self.semitones * (draw.uniform("hit") < self.p)
        rate = 2 ** (steps / 12)  # [B] samples of the old for one
        lengths = (waves.lengths / rate).long().clamp(min=1)
        length = int(lengths.max()) if isinstance(view, Waves) else view.shape[-1]
        step = torch.arange(length, device=rate.device)
        values = resampled(waves, (step % lengths[:, None]) * rate[:, None], rate)
        return Waves(values * (step < lengths[:, None])[:, None], lengths) if isinstance(view, Waves) else values


def resampled(waves: Waves, at: Tensor, rate: Tensor) -> Tensor:
    """Values between the samples, ``[B, C, T]``.

    Args:
        waves: Recordings.
        at: ``[B, T]`` float64, in samples.
        rate: ``[B]``: above 1 what would be heard as another tone is filtered out.
    """
    base = at.floor()
    cut = (1 / rate).clamp(max=1)[:, None]
    total = waves.values.new_zeros(len(at), waves.values.shape[1], at.shape[1])
    norm = torch.zeros_like(at)
    for tap in range(1 - TAPS, TAPS + 1):
        place = base + tap
        distance = at - place  # [B, T], within TAPS
        weight = cut * torch.sinc(cut * distance) * torch.cos(math.pi / 2 * distance / TAPS).square()
        norm += weight
        inside = (place >= 0) & (place < waves.lengths[:, None])
        total += gathered(waves.values, torch.where(inside, place, 0).long()) * (weight * inside)[:, None].to(total)
    return total / norm[:, None].to(total)
