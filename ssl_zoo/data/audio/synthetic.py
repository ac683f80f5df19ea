"""Sounds that are computed, not recorded: for tests, timings and trying a configuration without any file."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_zoo.data.audio.source import Recordings
from ssl_zoo.data.source import Splits
from ssl_zoo.data.splits import seed_of
from ssl_zoo.ranges import Count, NonNegative, Size

LOWEST, INTERVAL = 220.0, 1.26  # Hz of the first class; a major third between neighbours
LENGTH = 0.3, 0.8  # seconds
HARMONICS = 3  # each of its own loudness


def synthetic_audio(
    samples: Size = 512,
    val_samples: Count = 128,
    classes: Size | None = 4,
    noise: NonNegative = 0.3,
    sample_rate: Size = 8000,
    seed: int = 0,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Each class is a pitch, each sample a tone of it that is out of tune, fades, and lies in white noise.

    Args:
        classes: None: unlabelled, drawn as if there were four.
        noise: Standard deviation beside a tone of 1.
        sample_rate: In Hz.
        seed: Of the sounds, not of the training.
    """
    kinds = 4 if classes is None else classes
    names = [f"{LOWEST * INTERVAL**i:.0f} Hz" for i in range(kinds)]

    def draw(count: int, part: str) -> Recordings:
        generator = torch.Generator().manual_seed(seed_of(part, seed))
        labels = torch.arange(count) % kinds
        waves = [_tone(LOWEST * INTERVAL**label, noise, sample_rate, generator) for label in labels.tolist()]
        words = f"tones {part} {count} {kinds} {float(noise)!r} {sample_rate} {seed}"
        return Recordings(waves, None if classes is None else labels, names, sample_rate, words)

    return Splits(draw(samples, "train"), draw(val_samples, "val") if val_samples else None)


def _tone(pitch: float, noise: float, sample_rate: int, generator: torch.Generator) -> Tensor:
    """``[1, L]`` in about [-1, 1]: its harmonics, out of tune by a semitone at most, in noise."""
    length, tune, loud, fade, *partials = torch.rand(4 + HARMONICS, generator=generator).tolist()
    time = torch.arange(int((LENGTH[0] + (LENGTH[1] - LENGTH[0]) * length) * sample_rate)) / sample_rate
    phase = 2 * math.pi * pitch * 2 ** ((tune - 0.5) / 6) * time
    harmonics = torch.stack([partial * torch.sin((i + 1) * phase) for i, partial in enumerate(partials)])
    tone = harmonics.sum(0) * torch.exp(-4 * fade * time)
    return ((0.05 + 0.25 * loud) * (tone + noise * torch.randn(len(time), generator=generator)))[None].clamp(-1, 1)
