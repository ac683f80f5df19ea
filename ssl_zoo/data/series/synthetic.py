"""Series that are drawn, not measured: for tests, timings and trying a configuration without any file."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_zoo.data.series.source import Series
from ssl_zoo.data.source import Splits
from ssl_zoo.data.splits import seed_of
from ssl_zoo.ranges import Count, NonNegative, Size


def synthetic_series(
    samples: Size = 256,
    val_samples: Count = 128,
    length: Size = 64,
    channels: Size = 2,
    classes: Size | None = 4,
    noise: NonNegative = 0.3,
    shortest: Size | None = None,
    seed: int = 0,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Each class is a frequency in each channel, each series a wave of it with a phase of its own, plus noise.

    Args:
        length: Steps.
        classes: None: unlabelled, drawn as if there were four.
        noise: Standard deviation, of waves of height 1.
        shortest: Series have ``shortest`` to ``length`` steps; None: ``length``.
        seed: Of the series, not of the training.
    """
    kinds = 4 if classes is None else classes
    names = [f"wave_{i}" for i in range(kinds)]

    def draw(n: int, part: str) -> Series:
        generator = torch.Generator().manual_seed(seed_of(part, seed))
        labels = torch.arange(n) % kinds
        values = _waves(labels, length, channels, generator)
        values = values + noise * torch.randn(values.shape, generator=generator)
        least = length if shortest is None else min(shortest, length)
        ends = torch.randint(least, length + 1, (n,), generator=generator)
        values[torch.arange(length) >= ends[:, None]] = math.nan
        return Series(values, None if classes is None else labels, names)

    return Splits(draw(samples, "train"), draw(val_samples, "val") if val_samples else None)


def _waves(labels: Tensor, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """``[N, length, channels]``."""
    phase = torch.rand(len(labels), 1, 1, generator=generator)
    turns = 1.0 + labels[:, None, None] + 0.5 * torch.arange(channels)  # of the whole series
    step = torch.arange(length)[:, None] / length
    return torch.sin(2 * math.pi * (turns * step + phase))
