"""Operations on batches of series ``[B, T, C]``: NaN is missing before and after, and the length stays."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import NonNegative, Share, Size

Each = Literal["step", "series", "channel"]


def ends(view: Tensor) -> Tensor:
    """``[B]``: how many steps of each series ``[T, C]`` there are before the missing ones at its end."""
    there = ~view.isnan().all(2)                                             # [B, T]
    steps = torch.arange(1, view.shape[1] + 1, device=view.device)
    return (there * steps).amax(1).clamp(min=1)


@register("series/crop")
class Crop(nn.Module):
    """A piece of each series, at least ``least`` of it.

    Args:
        least: Share of the steps of a series that are kept at least.
        stretch: Whether the piece is stretched to the steps of the series, with straight lines between its numbers
            (window slicing, Le Guennec et al. 2016); otherwise all else becomes missing.
    """

    def __init__(self, least: Share = 0.5, stretch: bool = True) -> None:
        super().__init__()
        self.least = least
        self.stretch = stretch

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        length = ends(view)                                                  # [B]
        share = self.least + (1 - self.least) * draw.uniform("share")
        kept = (length * share).ceil().long().clamp(min=1)
        first = ((length - kept + 1) * draw.uniform("first")).long()
        place = torch.arange(view.shape[1], device=view.device)              # [T]
        if not self.stretch:
            outside = (place < first[:, None]) | (place >= (first + kept)[:, None])
            return view.masked_fill(outside[..., None], torch.nan)
        at = first[:, None] + place * ((kept - 1) / (length - 1).clamp(min=1))[:, None]   # [B, T]
        return between(view, at).masked_fill((place >= length[:, None])[..., None], torch.nan)


def between(view: Tensor, at: Tensor) -> Tensor:
    """Numbers of ``[B, T, C]`` at the places ``at`` ``[B, S]`` in [0, T), on straight lines: ``[B, S, C]``."""
    low = at.floor().long().clamp(0, view.shape[1] - 1)
    high = (low + 1).clamp(max=view.shape[1] - 1)
    share = (at - low).to(view.dtype)[..., None]
    below, above = (view.gather(1, i[..., None].expand(-1, -1, view.shape[2])) for i in (low, high))
    return torch.where(share > 0, below + share * (above - below), below)    # a missing neighbour that has no share


@register("series/mask")
class Mask(nn.Module):
    """Steps become missing, with probability ``p``.

    Args:
        p: Of each step, or of each run of steps.
        run: Steps that become missing together.
    """

    def __init__(self, p: Share = 0.1, run: Size = 1) -> None:
        super().__init__()
        self.p = p
        self.run = run

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        runs = -(-view.shape[1] // self.run)
        hit = (draw.uniform("hit", runs) < self.p).repeat_interleave(self.run, 1)[:, : view.shape[1]]
        return view.masked_fill(hit[..., None], torch.nan)


@register("series/jitter")
class Jitter(nn.Module):
    """Add noise of mean 0 to each number (``jitter`` of TS-TCC's ``augmentations.py``).

    Args:
        sigma: Standard deviation; 0.8 for TS-TCC's HAR.
    """

    def __init__(self, sigma: NonNegative = 0.1) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        return view + self.sigma * draw.normal("noise", *view.shape[1:])


@register("series/scale")
class Scale(nn.Module):
    """Multiply by numbers around ``mean`` (``scaling`` of TS-TCC's ``augmentations.py``).

    Args:
        sigma: Standard deviation of the factors; 1.1 for TS-TCC's HAR.
        mean: Of the factors; 2 in TS-TCC's released code, 1 where amplitudes are to stay as they are on average.
        each: step: one factor for each step and all channels, as TS-TCC; series: one for the whole series; channel: one
            for each channel.
    """

    def __init__(self, sigma: NonNegative = 0.1, mean: float = 1.0, each: Each = "series") -> None:
        super().__init__()
        self.sigma = sigma
        self.mean = mean
        self.each = each

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        shape = {"step": (view.shape[1], 1), "series": (1, 1), "channel": (1, view.shape[2])}[self.each]
        return view * (self.mean + self.sigma * draw.normal("factor", *shape))


@register("series/permute")
class Permute(nn.Module):
    """Cut each series at random places and put the pieces in another order (``permutation`` of TS-TCC).

    Args:
        segments: Pieces at most; each number from 1 to ``segments - 1`` is equally likely, as in the released code. 8
            for TS-TCC's HAR.
        first_channel: Whether all channels become the permuted first one where there are several pieces: an oversight
            of the released code that its numbers were made with.
    """

    def __init__(self, segments: Size = 5, first_channel: bool = False) -> None:
        super().__init__()
        self.segments = segments
        self.first_channel = first_channel

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        # A cut lies before step 0 to T - 3: np.random.choice(T - 2, n - 1, replace=False) of the released code.
        places = max(view.shape[1] - 2, 1)
        most = min(self.segments - 1, places + 1)                            # pieces
        if most < 2:
            return view
        pieces = draw.integers("pieces", most)[:, None] + 1                  # [B, 1]
        rank = torch.arange(most, device=view.device)
        cuts = draw.permutation(places, "cuts")[:, : most - 1]               # [B, most - 1]
        cuts = cuts.masked_fill(rank[:-1] >= pieces - 1, view.shape[1]).sort(1).values
        order = draw.uniform("order", most).masked_fill(rank >= pieces, 2.0).argsort(1)
        return permuted(view, cuts, order, self.first_channel)


def permuted(view: Tensor, cuts: Tensor, order: Tensor, first_channel: bool = False) -> Tensor:
    """Pieces of ``[B, T, C]`` in another order.

    Args:
        cuts: ``[B, n - 1]`` int64, sorted: each begins a piece; T where there are fewer.
        order: ``[B, n]`` int64: which piece comes first, second, ...; those behind the last are empty, in any order.
        first_channel: As :class:`Permute` has it.
    """
    step = torch.arange(view.shape[1], device=view.device).expand(len(view), -1).contiguous()
    piece = torch.searchsorted(cuts.contiguous(), step, right=True)          # [B, T]: of each step
    place = order.argsort(1).gather(1, piece)                                # [B, T]: of its piece
    source = (place * view.shape[1] + step).argsort(1)                       # [B, T]
    moved = view.gather(1, source[..., None].expand_as(view))
    if not first_channel:
        return moved
    several = (cuts < view.shape[1]).any(1)[:, None, None]
    return torch.where(several, moved[..., :1].expand_as(view), moved)
