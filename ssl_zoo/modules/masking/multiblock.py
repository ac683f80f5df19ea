"""Which patches I-JEPA sees and which it predicts: blocks, or patches one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.modules.masking.random import random_masking
from ssl_zoo.ranges import Size

Grid = tuple[int, int]  # rows and columns of patches
TRIES = 20  # placements of a context block after which one target block less is kept out of it


class Blocks(NamedTuple):
    """Patch numbers, row by row through the grid, on the CPU."""

    context: Tensor  # [E, B, K] int64
    targets: Tensor  # [P, B, T] int64


class MultiBlock:
    """Context blocks without the patches of target blocks: Sec. 3 of I-JEPA, https://arxiv.org/abs/2301.08243.

    As ``MaskCollator`` of src/masks/multiblock.py, facebookresearch/ijepa@52c1ae9. One number gives a block's scale
    *and* its aspect ratio; all blocks of a kind have one size in a batch and a place of their own; a block never lies
    at the last place of a row or column; all index lists are cut to the shortest of the batch, first patches first.
    The authors' batch is a process's, ours the global one, so that the number of processes changes nothing.

    Args:
        targets: Blocks to predict, P.
        target_scale: Smallest and largest share of the patches in a target block.
        aspect_ratio: Smallest and largest height over width of a target block.
        contexts: Blocks to see, E; they are square.
        context_scale: Smallest and largest share of the patches in a context block.
        min_keep: A block must have more patches than this.
        allow_overlap: Leave target patches in the context.
    """

    def __init__(
        self,
        targets: Size = 4,
        target_scale: Sequence[float] = (0.15, 0.2),
        aspect_ratio: Sequence[float] = (0.75, 1.5),
        contexts: Size = 1,
        context_scale: Sequence[float] = (0.85, 1.0),
        min_keep: Size = 10,
        allow_overlap: bool = False,
    ) -> None:
        ranges = {"target_scale": target_scale, "aspect_ratio": aspect_ratio, "context_scale": context_scale}
        for name, given in ranges.items():
            if len(given) != 2 or not 0 < given[0] <= given[1] or (given[1] > 1 and name != "aspect_ratio"):
                raise ValueError(f"masks.{name}={list(given)} wants a smallest and a largest value, shares up to 1")
        if min(targets, contexts) < 1:
            raise ValueError(f"masks: wants 1 target and 1 context block or more, got {targets} and {contexts}")
        self.targets = targets
        self.target_scale = target_scale
        self.aspect_ratio = aspect_ratio
        self.contexts = contexts
        self.context_scale = context_scale
        self.min_keep = min_keep
        self.allow_overlap = allow_overlap

    def __call__(self, draw: Draw, rows: int, grid: Grid) -> Blocks:
        """Blocks of a global batch of ``rows`` images, from a draw on the CPU that all processes share."""
        return shortest(*self.place(draw, rows, grid, self.sizes(draw, grid)))

    def check(self, grid: Grid) -> None:
        """Raise a ValueError if blocks on this grid can have too few patches."""
        for share in (step / 100 for step in range(101)):
            for height, width in self._sizes(share, share, grid):
                self._check_size(height, width, grid)

    def sizes(self, draw: Draw, grid: Grid) -> tuple[Grid, Grid]:
        """Height and width of target and context blocks of a batch."""
        return self._sizes(draw.uniform("target size").item(), draw.uniform("context size").item(), grid)

    def _sizes(self, target: float, context: float, grid: Grid) -> tuple[Grid, Grid]:
        square = (1.0, 1.0)
        return (
            block_size(target, self.target_scale, self.aspect_ratio, grid),
            block_size(context, self.context_scale, square, grid),
        )

    def _check_size(self, height: int, width: int, grid: Grid) -> None:
        if height * width <= self.min_keep:
            raise ValueError(
                f"masks.min_keep={self.min_keep}: a block of {height} x {width} of the {grid[0]} x {grid[1]} patches "
                f"must have more; try {height * width - 1}, or larger scales"
            )

    def place(self, draw: Draw, rows: int, grid: Grid, sizes: tuple[Grid, Grid]) -> tuple[Tensor, Tensor]:
        """Blocks of some images: context ``[E, rows, h * w]`` and targets ``[P, rows, h * w]``, bool."""
        targets: list[Tensor] = []
        for i in range(self.targets):
            targets.append(self._placed(draw.child(("target", i)), rows, grid, sizes[0], []))
        taken = [] if self.allow_overlap else targets
        context = [self._placed(draw.child(("context", i)), rows, grid, sizes[1], taken) for i in range(self.contexts)]
        return torch.stack(context), torch.stack(targets)

    def _placed(self, draw: Draw, rows: int, grid: Grid, size: Grid, taken: list[Tensor]) -> Tensor:
        """``[rows, h * w]``: one block an image, less ``taken``, placed anew where too few patches are left."""
        self._check_size(*size, grid)
        result = torch.zeros(rows, grid[0] * grid[1], dtype=torch.bool)
        open_rows = torch.ones(rows, dtype=torch.bool)
        for attempt in itertools.count():
            spots = [draw.integers((side, attempt), grid[i] - size[i], rows) for i, side in enumerate(("top", "left"))]
            block = rectangles(spots[0], spots[1], size, grid)
            for other in taken[: max(len(taken) - attempt // TRIES, 0)]:
                block = block & ~other
            fits = open_rows & (block.sum(1) > self.min_keep)
            result = torch.where(fits[:, None], block, result)
            open_rows = open_rows & ~fits
            if not open_rows.any():
                break
        return result


class RandomPatches:
    """Patches drawn one by one; the rest is the target: src/masks/random.py of facebookresearch/ijepa@52c1ae9.

    Args:
        ratio: Smallest and largest share of the patches that is predicted; one share for the whole batch.
    """

    def __init__(self, ratio: Sequence[float] = (0.4, 0.6)) -> None:
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1] < 1:
            raise ValueError(f"masks.ratio={list(ratio)} wants a smallest and a largest share between 0 and 1")
        self.ratio = ratio

    def check(self, grid: Grid) -> None:
        """Raise a ValueError if no patch would stay on this grid."""
        random_masking(torch.zeros(1, grid[0] * grid[1]), self.ratio[1])

    def __call__(self, draw: Draw, rows: int, grid: Grid) -> Blocks:
        low, high = self.ratio
        ratio = low + draw.uniform("ratio").item() * (high - low)
        masking = random_masking(draw.uniform("noise", rows, grid[0] * grid[1]), ratio)
        order = masking.restore.argsort(1)
        return Blocks(masking.keep[None], order[None, :, masking.keep.shape[1] :])


def block_size(share: float, scale: Sequence[float], aspect_ratio: Sequence[float], grid: Grid) -> Grid:
    """Height and width in patches; ``share`` in [0, 1) goes from the smallest to the largest scale and aspect ratio."""
    height, width = grid
    area = int(height * width * (scale[0] + share * (scale[1] - scale[0])))
    ratio = aspect_ratio[0] + share * (aspect_ratio[1] - aspect_ratio[0])
    sides = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(sides[0], height - 1), min(sides[1], width - 1)


def rectangles(top: Tensor, left: Tensor, size: Grid, grid: Grid) -> Tensor:
    """``[B, h * w]`` bool, true inside a block of ``size`` at ``top, left [B]``."""
    rows, columns = (
        (torch.arange(side) >= start[:, None]) & (torch.arange(side) < start[:, None] + length)
        for side, start, length in zip(grid, (top, left), size, strict=True)
    )
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def shortest(context: Tensor, targets: Tensor) -> Blocks:
    """Numbers of the first K patches of each mask ``[M, B, N]``, K that of the smallest mask of its kind."""
    return Blocks(*map(_first, (context, targets)))


def _first(masks: Tensor) -> Tensor:
    length = int(masks.sum(-1).min())
    kept = masks & (masks.cumsum(-1) <= length)
    return kept.nonzero()[:, -1].view(*masks.shape[:-1], length)
