"""How a window sounds: louder, noisier, in another room, without a band."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.audio.windows import Sounds, window
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import NonNegative, Share, Size

QUIET = 1e-5  # deviation below which a window is silence, which is not made louder


def between(draw: Draw, name: str, low: float, high: float) -> Tensor:
    """``[B, 1, 1]`` uniform numbers."""
    return (low + (high - low) * draw.uniform(name))[:, None, None]


def hit(draw: Draw, p: float) -> Tensor:
    """``[B, 1, 1]``: which samples it happens to."""
    return (draw.uniform("hit") < p)[:, None, None]


def _ordered(name: str, option: str, values: list[float] | tuple[float, float]) -> tuple[float, float]:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: {option} is {list(values)}, wanted [lowest, highest]")
    return float(values[0]), float(values[1])


@register("audio/gain")
class Gain(nn.Module):
    """Make each window louder or quieter.

    Args:
        decibels: Lowest and highest.
        p: Share of the samples that it happens to.
    """

    def __init__(self, decibels: list[float] | tuple[float, float] = (-6.0, 6.0), p: Share = 1.0) -> None:
        super().__init__()
        self.decibels, self.p = _ordered("audio/gain", "decibels", decibels), p

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        factor = 10 ** (between(draw, "gain", *self.decibels) / 20)
        return window(view, "audio/gain") * torch.where(hit(draw, self.p), factor, 1.0)


@register("audio/noise")
class Noise(nn.Module):
    """Add white noise.

    Args:
        snr: Power of the window over that of the noise, lowest and highest, in decibels.
        p: Share of the samples that it happens to.
    """

    def __init__(self, snr: list[float] | tuple[float, float] = (5.0, 30.0), p: Share = 0.5) -> None:
        super().__init__()
        self.snr, self.p = _ordered("audio/noise", "snr", snr), p

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = window(view, "audio/noise")
        loud = x.square().mean((1, 2), keepdim=True).sqrt() * 10 ** (-between(draw, "snr", *self.snr) / 20)
        return x + draw.normal("noise", *x.shape[1:]) * loud * hit(draw, self.p)


@register("audio/reverb")
class Reverb(nn.Module):
    """A room: the window convolved with noise that dies away, which follows the direct sound.

    Args:
        seconds: In which the room's sound falls by 60 decibels, lowest and highest.
        wet: Energy of the room's sound over that of the direct one, at most.
        p: Share of the samples that it happens to.
        sample_rate: In Hz; the data gives its own.
    """

    def __init__(
        self,
        seconds: list[float] | tuple[float, float] = (0.05, 0.3),
        wet: NonNegative = 0.5,
        p: Share = 0.5,
        sample_rate: Size | None = None,
    ) -> None:
        super().__init__()
        self.seconds, self.wet, self.p = _ordered("audio/reverb", "seconds", seconds), wet, p
        self.sample_rate = sample_rate or 1
        if self.seconds[0] <= 0:
            raise ValueError(f"audio/reverb: seconds is {list(seconds)}, wanted numbers above 0")

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = window(view, "audio/reverb")
        taps = max(round(self.seconds[1] * self.sample_rate), 1)
        time = torch.arange(1, taps + 1, device=x.device) / self.sample_rate
        # 60 dB are a factor of 1000, of which the natural logarithm is 6.9.
        fall = torch.exp(-math.log(1000) * time / between(draw, "seconds", *self.seconds))  # [B, 1, taps]
        room = draw.normal("room", 1, taps) * fall
        room = room * (between(draw, "wet", 0.0, self.wet) / room.square().sum(-1, keepdim=True)).sqrt()
        size = 1 << (x.shape[-1] + taps - 1).bit_length()
        # In double precision: how single precision rounds depends on how many samples are transformed together.
        echo = torch.fft.irfft(torch.fft.rfft(x.double(), size) * torch.fft.rfft(room.double(), size), size)
        later = torch.nn.functional.pad(echo, (1, 0))[..., : x.shape[-1]]  # behind the direct
        return torch.where(hit(draw, self.p), (x + later).to(x.dtype), x)


@register("audio/band_drop")
class BandDrop(nn.Module):
    """Silence a band of frequencies.

    Args:
        width: Of all frequencies, at most.
        p: Share of the samples that it happens to.
    """

    def __init__(self, width: Share = 0.2, p: Share = 0.5) -> None:
        super().__init__()
        self.width, self.p = width, p

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = window(view, "audio/band_drop")
        spectrum = torch.fft.rfft(x.double())  # as in Reverb
        width = between(draw, "width", 0.0, self.width)
        low = (1 - width) * between(draw, "low", 0.0, 1.0)
        frequency = torch.linspace(0, 1, spectrum.shape[-1], device=x.device)
        silent = (frequency >= low) & (frequency < low + width) & hit(draw, self.p)
        return torch.fft.irfft(spectrum * ~silent, x.shape[-1]).to(x.dtype)


@register("audio/standardize")
class Standardize(nn.Module):
    """Mean 0 and deviation 1 of each window, whatever the microphone (wav2vec 2.0, https://arxiv.org/abs/2006.11477,
    Sec. 4.1)."""

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = window(view, "audio/standardize")
        centred = x - x.mean((1, 2), keepdim=True)
        return centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=QUIET)
