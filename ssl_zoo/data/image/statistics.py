"""Mean and standard deviation of each band, measured once on a sample of the training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.augmentations.image.views import unit
from ssl_zoo.data.image.pixel_range import THREADS, sampled
from ssl_zoo.data.source import DamagedFile, Source, located, origin
from ssl_zoo.errors import ConfigError

MEASURED = "measured"  # what augmentation.normalize says for it
SHOWN = 4  # bands whose numbers a line tells


class Normalization(NamedTuple):
    """What the views end with."""

    numbers: Mapping[str, Any] | None  # {mean, std}, or None: nothing
    measured: bool  # on this data
    told: list[str]


def normalization(asked: Any, source: Source, channels: int) -> Normalization:
    """What ``augmentation.normalize`` is for these images.

    Args:
        asked: ``{mean, std}``, None or ``measured``. Three numbers for other than three bands are those of colour, in
            whose place this data's own are measured.
        source: Training samples.
        channels: Their bands.
    """
    colour = isinstance(asked, Mapping) and channels != 3 and all(len(asked.get(key) or ()) == 3 for key in
                                                                  ("mean", "std"))  # fmt: skip
    if asked is None or not colour and isinstance(asked, Mapping):
        return Normalization(asked, False, [])
    if not colour and asked != MEASURED:
        raise ConfigError(f"augmentation.normalize={asked!r}: wanted {{mean: [...], std: [...]}}, measured or null")
    found, n = measure(source)
    why = ", because those of the views are of colour" if colour else ""
    pairs = [f"{mean:.4g} +- {std:.4g}" for mean, std in zip(found["mean"], found["std"], strict=True)]
    shown = ", ".join(pairs[:SHOWN]) + (f" and {len(pairs) - SHOWN} more bands" if len(pairs) > SHOWN else "")
    return Normalization(found, True, [f"normalised by mean and deviation of {n:,} images: {shown}{why}"])


def measure(source: Source) -> tuple[dict[str, list[float]], int]:
    """``{mean, std}`` of each band over a fixed sample, in units of black (0) to white (1), and how many images it had.

    Pixels without data are left out. A band of one value has a deviation of 1, which leaves it at 0.

    Raises:
        ConfigError: If no image of the sample can be read.
    """
    total: Tensor | None = None
    n = 0
    for sums in _sums(source):
        total = sums if total is None else total + sums
        n += 1
    if total is None:
        raise ConfigError("augmentation.normalize=measured: no image can be read; set it to null or to {mean, std}")
    count, first, second = total.unbind(0)  # [C] each
    mean = first / count.clamp(min=1)
    std = (second / count.clamp(min=1) - mean**2).clamp(min=0).sqrt()
    std = torch.where(std > 1e-8, std, torch.ones_like(std))
    return {"mean": _plain(mean), "std": _plain(std)}, n


def _sums(source: Source) -> Iterator[Tensor]:
    """``[3, C]`` float64 of each readable image: number of pixels, sum, sum of squares."""
    rows = sampled(len(source))
    own: Any = origin(source)
    white = getattr(own, "white", None)
    scale = {} if white is None else {"white": white}
    if source.in_memory:
        for piece in torch.tensor(rows).split(64):
            images = unit(source.fetch(piece).cpu(), **scale).double()
            yield from (_of(image, None) for image in images)
        return
    masked = getattr(own, "masked", None)

    def read(row: int) -> Tensor | None:
        try:
            image, missing = (source.load(row), None) if masked is None else masked(located(source, row))
        except DamagedFile:
            return None  # named when its turn comes
        return _of(unit(image, **scale).double(), missing)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from (sums for sums in pool.map(read, rows) if sums is not None)


def _of(image: Tensor, missing: Tensor | None) -> Tensor:
    here = torch.ones_like(image) if missing is None else (~missing).double()
    x = image * here
    return torch.stack([part.flatten(1).sum(1) for part in (here, x, x * x)])


def _plain(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
