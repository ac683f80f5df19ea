"""Images that are drawn, not photographed: for tests, timings and trying a configuration without any file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.data.image.arrays import Arrays, check_memory
from ssl_zoo.data.source import Splits
from ssl_zoo.data.splits import seed_of
from ssl_zoo.ranges import Count, NonNegative, Size
from ssl_zoo.sides import Side, height_width, plain_side


def synthetic(
    image_size: Side,
    channels: int,
    samples: Size = 1024,
    val_samples: Count = 256,
    classes: Size | None = 4,
    noise: NonNegative = 0.15,
    seed: int = 0,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Each class is a smooth random pattern (4 x 4 numbers a channel, enlarged), each image that pattern plus noise.

    Args:
        classes: None: unlabelled, drawn as if there were four.
        noise: Standard deviation, of pixels in [0, 1].
        seed: Of the images, not of the training.
    """
    check_memory(samples + val_samples, image_size, channels)
    kinds = 4 if classes is None else classes
    generator = torch.Generator().manual_seed(seed_of("patterns", seed))
    coarse = torch.rand(kinds, channels, 4, 4, generator=generator)
    patterns = F.interpolate(coarse, height_width(image_size), mode="bicubic")
    names = [f"pattern_{i}" for i in range(kinds)]

    def draw(n: int, name: str) -> Arrays:
        labels = torch.arange(n) % kinds
        pieces = enumerate(labels.split(1024))
        images = torch.cat([_noisy(patterns, piece, noise, seed_of(name, seed, i)) for i, piece in pieces])
        # All that decides the pixels.
        drawn = f"{name} {n} {kinds} {float(noise)!r} {seed} {channels} x {plain_side(image_size)}"
        return Arrays(images, None if classes is None else labels, names, drawn)

    train = draw(samples, "train")
    return Splits(train, draw(val_samples, "val") if val_samples else None)


def _noisy(patterns: Tensor, labels: Tensor, noise: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = patterns[labels]
    x = x + noise * torch.randn(x.shape, generator=generator)
    return (x * 255).round().clamp(0, 255).to(torch.uint8)
