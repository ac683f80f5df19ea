"""Log-mel spectrograms: how loud a sound is in each band, over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.audio.windows import Sounds
from ssl_zoo.augmentations.audio.windows import window as cut
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.losses.precision import autocast_off, promoted
from ssl_zoo.ranges import NonNegative, Positive, Size

FLOOR = 1e-6  # added to the power: what is silent is no -inf


def mel_filters(mels: int, bins: int, sample_rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangles of height 1, evenly spaced on the mel scale ``2595 log10(1 + f / 700)`` (O'Shaughnessy 1987).

    Args:
        mels: M.
        bins: Of a spectrum, from 0 Hz to half of ``sample_rate``.
        sample_rate: In Hz.
        low, high: Where the first triangle begins and the last one ends, in Hz; None: half of ``sample_rate``.

    Returns:
        ``[M, bins]`` float64.

    Raises:
        ValueError: If a triangle lies between two bins, so that its band would be silent for ever.
    """
    ends = torch.tensor([low, sample_rate / 2 if high is None else high], dtype=torch.float64)
    mel = 2595 * torch.log10(1 + ends / 700)
    corners = 700 * (10 ** (torch.linspace(float(mel[0]), float(mel[1]), mels + 2, dtype=torch.float64) / 2595) - 1)
    frequency = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - left) / (middle - left), (right - frequency) / (right - middle)
    filters = torch.minimum(rising, falling).clamp(min=0)
    if not bool(filters.sum(1).all()):
        raise ValueError(
            f"{mels} mel bands of {sample_rate} Hz are too narrow for a spectrum of {bins} bins; "
            "take fewer bands, or a longer window"
        )
    return filters


class LogMel(nn.Module):
    """Waveforms ``[B, C, T]`` to ``[B, C, M, 1 + T // hop]``: the natural logarithm of the power in each mel band.

    Spectra of Hann windows around every ``hop``-th sample, zeros beyond the ends, of twice the window's length so that
    low bands have bins of their own. Computed in float32 or better.

    Args:
        sample_rate: In Hz.
        mels: Bands, M.
        window, hop: In seconds.
        low, high: Ends of the bands in Hz; None: half of ``sample_rate``.
    """

    filters: Tensor
    shape: Tensor

    def __init__(
        self,
        sample_rate: Size,
        mels: Size = 40,
        window: Positive = 0.025,
        hop: Positive = 0.01,
        low: float = 20.0,
        high: float | None = None,
    ) -> None:
        super().__init__()
        self.length = max(round(window * sample_rate), 2)
        self.hop = max(round(hop * sample_rate), 1)
        self.bins = 1 << (2 * self.length - 1).bit_length()
        filters = mel_filters(mels, self.bins // 2 + 1, sample_rate, low, high)
        self.register_buffer("filters", filters.float(), persistent=False)
        self.register_buffer("shape", torch.hann_window(self.length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with autocast_off():
            x = promoted(x)
            wave = F.pad(x.flatten(0, 1), (self.bins // 2, self.bins // 2))
            window = self.shape.to(x.dtype)
            spectrum = torch.stft(wave, self.bins, self.hop, self.length, window, center=False, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()  # [B * C, bins / 2 + 1, F]
            return (self.filters.to(x.dtype) @ power + FLOOR).log().unflatten(0, x.shape[:2])


@register("audio/log_mel")
class LogMelView(nn.Module):
    """Log-mel spectrogram, ``[B, C, T]`` -> ``[B, C, M, F]``; the last operation of a view.

    Args:
        mels, window, hop, low, high, sample_rate: as of :class:`LogMel`; the data gives its
            own rate.
    """

    def __init__(
        self,
        mels: Size = 40,
        window: Positive = 0.025,
        hop: Positive = 0.01,
        low: NonNegative = 20.0,
        high: Positive | None = None,
        sample_rate: Size | None = None,
    ) -> None:
        super().__init__()
        self.made = LogMel(sample_rate, mels, window, hop, low, high) if sample_rate is not None else nn.Identity()

    def forward(self, view: Sounds, draw: Draw) -> Tensor:
        x = cut(view, "audio/log_mel")
        # In double precision: how single precision rounds depends on how many samples are transformed together.
        return self.made.to(x.device)(x.double()).to(x.dtype)
