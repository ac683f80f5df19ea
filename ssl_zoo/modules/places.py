"""Places of maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import BatchRNG


def at_most(x: Tensor, side: int | None) -> Tensor:
    """Average a map ``[B, C, h, w]`` down to at most ``side`` on each side; None: the map itself."""
    if side is None:
        return x
    return nn.functional.adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3])))


def drawn_place(level: Tensor, rng: BatchRNG, name: str) -> Tensor:
    """``[B, D, h, w]`` -> ``[B, D]``: one place of each image, as drawn (row by row)."""
    places = level.flatten(2)
    if places.shape[2] == 1:
        return places[:, :, 0]
    drawn = rng.sample(name).integers("place", places.shape[2])                      # [B]
    return places[torch.arange(len(places), device=places.device), :, drawn]
