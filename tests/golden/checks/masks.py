"""Numbers that the authors' generators drew for masks, as the uniform numbers that ours take."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNIFORM, INTEGER, CHOICE = 0, 1, 2  # kinds of recorded draws
Row = tuple[int, float, float, float]  # kind, low, high, value
Draws = list[Row]


class Recorder:
    """Python's generator in the authors' hands: writes down what it gives, in the layout of the recordings."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.draws: Draws = []

    def uniform(self, low: float, high: float) -> float:
        return self._noted(UNIFORM, low, high, self.source.uniform(low, high))

    def randint(self, low: int, high: int) -> int:
        return int(self._noted(INTEGER, low, high, self.source.randint(low, high)))

    def choice(self, values: Sequence[float]) -> float:
        return self._noted(CHOICE, -1, -1, self.source.choice(values))

    def taken(self) -> Draws:
        draws, self.draws = self.draws, []
        return draws

    def _noted(self, kind: int, low: float, high: float, value: float) -> float:
        self.draws.append((kind, low, high, value))
        return value


def draw_blocks(
    source: Recorder, grid: int, target: float, smallest: float, largest: float, aspects: Sequence[float]
) -> None:
    """What a generator is asked for one mask: which numbers are drawn depends on those before (notes of the cases)."""
    mask = np.zeros((grid, grid), dtype=bool)
    failed = 0
    while mask.sum() < target and failed < 10:
        missing = min(target - mask.sum(), largest)
        area, aspect = source.uniform(smallest, missing), math.exp(source.uniform(*(math.log(a) for a in aspects)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        failed += 1
        if height < grid and width < grid:
            top, left = source.randint(0, grid - height), source.randint(0, grid - width)
            seen = ~mask[top : top + height, left : left + width]
            if 0 < seen.sum() <= missing:
                mask[top : top + height, left : left + width] = True
                failed = 0


def attempts_of(draws: Sequence[Draws]) -> Callable[[int], Tensor]:
    """Numbers for every block of every mask, all at the first call; a second would want more than were drawn."""
    blocks = [_blocks(rows) for rows in draws]
    table = torch.full((len(blocks), max(map(len, blocks)), 4), torch.nan, dtype=torch.float64)
    for i, found in enumerate(blocks):
        table[i, : len(found)] = torch.tensor(found, dtype=torch.float64).view(-1, 4)

    def attempts(call: int) -> Tensor:
        assert call == 0, "ours asks for more blocks than the authors drew"
        return table

    return attempts


def _blocks(rows: Draws) -> list[list[float]]:
    """Uniform numbers for area, aspect, top and left; the place of a block that did not fit was not drawn."""
    found: list[list[float]] = []
    for kind, low, high, value in rows:
        if kind == UNIFORM:
            number = (value - low) / (high - low) if high != low else 0.0
            if found and len(found[-1]) == 1:
                found[-1].append(number)
            else:
                found.append([number])
        else:
            found[-1].append((value - low + 0.5) / (high - low + 1))
    return [(block + [0.0, 0.0])[:4] for block in found]


def split(arrays: Any) -> list[Draws]:
    """The recorded draws of each mask."""
    offsets = arrays["draw_offsets"]
    rows = [(int(row[0]), *map(float, row[1:])) for row in arrays["draws"]]
    return [rows[start:end] for start, end in zip(offsets[:-1], offsets[1:], strict=True)]  # type: ignore[misc]
