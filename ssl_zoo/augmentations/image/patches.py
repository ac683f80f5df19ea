"""Many small tiles of one image, stacked: ``[B, C, H, W]`` to ``[B, P, C, size, size]``.

The last operation of a view, whose size is that of a tile; a crop before it gives the size of the whole:
``{image/random_resized_crop: {size: 255}}``. What is done to every tile alone stands in its option ``each``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.errors import require
from ssl_zoo.sides import Side, height_width

ORDERS = ("rows", "columns")


class Tiles(nn.Module):
    """What operations that cut squares of one size out of an image share.

    Reports ``box``: ``[B, P, 4]`` int64 top, left, height, width of each tile in the image.

    Args:
        size: side of a tile as it is cut.
        each: operations on every tile, with draws of its own; what they report is ``[B, P, ...]``.
    """

    tiles = True
    nested = ("each",)   # options that are lists of operations
    shape: tuple[int, int]   # tiles down and across
    shuffle: bool   # whether their order says nothing of their places

    def __init__(self, size: int, each: Sequence[Any] = ()):
        super().__init__()
        problems = registry.check(each)
        if problems:
            raise ValueError("each: " + "; ".join(problems))
        self.size = size
        self.names = [registry.parse(entry)[0] for entry in each]
        self.each = nn.ModuleList([registry.build(entry, size) for entry in each])

    def check(self, height: int, width: int) -> None:
        """Raise a ValueError if the tiles do not fit into an image of this size."""
        raise NotImplementedError

    def cut(self, x: Tensor, top: Tensor, left: Tensor, draw: Draw) -> Tensor:
        """``[B, P, C, s, s]``: the tiles whose first pixels are at ``top`` and ``left``, ``[B, P]``."""
        side = torch.full_like(top, self.size)
        draw.report("box", torch.stack((top, left, side, side), dim=2))
        window = torch.arange(self.size, device=x.device)
        top, left = top.unsqueeze(-1), left.unsqueeze(-1)                                        # [B, P, 1]
        pixel = ((top + window) * x.shape[3]).unsqueeze(-1) + (left + window).unsqueeze(-2)      # [B, P, s, s]
        channels, count = x.shape[1], top.shape[1]
        index = pixel.view(len(x), 1, -1).expand(-1, channels, -1)
        tiles = x.flatten(2).gather(2, index).view(len(x), channels, count, self.size, self.size)
        return self._changed(tiles.transpose(1, 2).contiguous(), draw)

    def _changed(self, tiles: Tensor, draw: Draw) -> Tensor:
        if not self.names:
            return tiles
        count = tiles.shape[1]
        x, own = tiles.flatten(0, 1), draw.child("each").spread(count)                           # [B * P, C, s, s]
        for i, (name, op) in enumerate(zip(self.names, self.each, strict=True)):
            x = op(x, own.child(i, name))
        for name, report in own.reports.items():
            draw.report(name, report.unflatten(0, (-1, count)))
        return x.unflatten(0, (-1, count))


@register("image/jigsaw")
class Jigsaw(Tiles):
    """One tile out of each cell of a grid, in an order of its own for each sample (Noroozi & Favaro 2016,
    https://arxiv.org/abs/1603.09246; with the sizes of PIRL, https://arxiv.org/abs/1912.01991: 255 pixels, 3 x 3 cells
    of 85, tiles of 64).

    Also reports ``permutation``: ``[B, grid^2]`` int64; tile i comes from cell ``permutation[:, i]``, counted row by
    row.

    Args:
        size: side of a tile; a view gives its own.
        grid: cells on each side.
        jitter: a tile lies at most this far from the middle of its cell, in each direction; null: anywhere in the cell.
        shuffle: false leaves the tiles in the order of the cells, for methods that permute what they computed.
        order: of the cells: ``rows``, or ``columns`` (``ImgPatchesFromTensor`` of facebookresearch/vissl@09270ed).
        last: false: the last row and column of places in a cell are never drawn (vissl).
        overlap: pixels by which a cell reaches into the next one, and beyond the image, where it is black
            (JigsawImageLoader.py of bbrattoli/JigsawPuzzlePytorch@ec85994: 1).
        each: operations on every tile.
    """

    def __init__(self, size: int, grid: int = 3, jitter: int | None = None, shuffle: bool = True, order: str = "rows",
                 last: bool = True, overlap: int = 0, each: Sequence[Any] = ()):
        super().__init__(size, each)
        require("order", order, ORDERS)
        if grid < 1 or size < 1 or (jitter is not None and jitter < 0):
            raise ValueError(f"grid is {grid}, size {size}, jitter {jitter}: at least 1, 1, and 0 or null")
        if overlap < 0:
            raise ValueError(f"overlap is {overlap}, it must not be negative")
        self.grid, self.jitter, self.shuffle, self.order = grid, jitter, shuffle, order
        self.shape, self.last, self.overlap = (grid, grid), last, overlap

    def cells(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """``[P, 4]`` top, left, height and width of the cells of an image, row by row."""
        down, across = height // self.grid, width // self.grid
        cell = torch.arange(self.grid**2, device=device)
        sides = (torch.full_like(cell, side + self.overlap) for side in (down, across))
        return torch.stack((cell // self.grid * down, cell % self.grid * across, *sides), dim=1)

    def check(self, height: int, width: int) -> None:
        for length in (height, width):
            self._reach(length)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        count = self.grid**2
        corners = torch.stack([self._starts(draw, axis, *x.shape[2:]) for axis in (0, 1)])       # 2 x [B, P]
        order = torch.arange(count, device=x.device)
        if self.order == "columns":
            order = order.view(self.grid, self.grid).T.flatten()
        order = order[draw.permutation(count, "order")] if self.shuffle else order.expand(len(x), -1)
        draw.report("permutation", order)
        top, left = corners.gather(2, order.expand(2, -1, -1))                                   # 2 x [B, P]
        x = F.pad(x, [0, self.overlap, 0, self.overlap]) if self.overlap else x
        return self.cut(x, top, left, draw)

    def _starts(self, draw: Draw, axis: int, height: int, width: int) -> Tensor:
        """``[B, P]`` first row (axis 0) or column (axis 1) of the tile of each cell."""
        first, reach = self._reach((height, width)[axis])
        place = (draw.uniform(("place", axis), self.grid**2).double() * (reach + 1)).floor().long()
        return self.cells(height, width, place.device)[:, axis] + first + place

    def _reach(self, length: int) -> tuple[int, int]:
        """The first place of a tile in a cell, and how much farther the last one is."""
        side = length // self.grid
        spare = side + self.overlap - self.size
        reach = 2 * self.jitter if self.jitter is not None else spare
        if not 0 <= reach <= spare or not (self.last or reach):
            jitter = self.jitter or 0
            raise ValueError(f"image/jigsaw: an image side of {length} makes {self.grid} cells of {side}, too small "
                             f"for tiles of {self.size} with jitter {jitter}; crop to at least "
                             f"{self.grid * (self.size + 2 * jitter)} before it, or make the view smaller")
        return (spare - reach) // 2, reach - (not self.last)


@register("image/spaced_tiles")
class SpacedTiles(Tiles):
    """Tiles with gaps between them, on a grid that begins at a random place of the image (Doersch et al. 2015,
    https://arxiv.org/abs/1505.05192; ``sample_patch`` and ``imgloader`` in train.py of cdoersch/deepcontext@5307282).

    Edges do not run from one tile into the next. The authors take as many tiles as fit behind the place where a grid
    begins; here their number is that of the view, and the grid begins where they fit.

    Args:
        size: side of a tile; a view gives its own.
        gap: pixels between tiles; null: half of ``size``, as 48 for the authors' 96.
        jitter: a tile moves by at most so many pixels, in each direction, and stays in the image; null: as 7 for the
            authors' 96, less than the gap.
        grid: tiles on each side; or down and across.
        each: operations on every tile.
    """

    shuffle = False

    def __init__(self, size: int, gap: int | None = None, jitter: int | None = None, grid: Side = 2,
                 each: Sequence[Any] = ()):
        super().__init__(size, each)
        self.gap = size // 2 if gap is None else gap
        self.jitter = min(round(size * 7 / 96), max(self.gap - 1, 0)) if jitter is None else jitter
        self.shape = height_width(grid)
        if self.jitter < 0 or self.gap < 0 or (self.jitter and self.jitter >= self.gap):
            raise ValueError(f"gap is {self.gap} and jitter {self.jitter}: tiles must not change places; wanted a gap "
                             f"of at least 0 and a jitter below it, or 0")

    def check(self, height: int, width: int) -> None:
        pitch = self.size + self.gap
        need = [count * pitch - self.gap for count in self.shape]
        if height < need[0] or width < need[1]:
            raise ValueError(f"image/spaced_tiles: an image of {height}x{width} is too small for {self.shape[0]} x "
                             f"{self.shape[1]} tiles of {self.size} with gaps of {self.gap}; crop to at least "
                             f"{need[0]}x{need[1]} before it, or make grid, gap or the view smaller")

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        self.check(*x.shape[2:])
        top, left = (self._starts(draw, axis, x.shape[2 + axis], x.device) for axis in (0, 1))   # [B, P]
        return self.cut(x, top, left, draw)

    def _starts(self, draw: Draw, axis: int, length: int, device: torch.device) -> Tensor:
        (down, across), pitch = self.shape, self.size + self.gap
        tile = torch.arange(down * across, device=device)
        place = tile // across if axis == 0 else tile % across
        room = length + self.gap - self.shape[axis] * pitch
        start = draw.integers(("start", axis), min(room + 1, pitch))                             # [B]
        shift = draw.integers(("shift", axis), 2 * self.jitter + 1, len(tile)) - self.jitter     # [B, P]
        return (start.unsqueeze(1) + place * pitch + shift).clamp(0, length - self.size)


@register("image/patch_grid")
class PatchGrid(nn.Module):
    """All tiles on a regular grid, row by row; neighbours overlap if ``stride`` is smaller than ``size``
    (CPC, https://arxiv.org/abs/1807.03748: half of each tile).

    Args:
        size: side of a tile; a view gives its own.
        stride: distance of neighbours; null: half of ``size``.
    """

    tiles = True

    def __init__(self, size: int, stride: int | None = None):
        super().__init__()
        self.size = size
        self.stride = max(size // 2, 1) if stride is None else stride
        if self.stride < 1:
            raise ValueError(f"stride is {stride}, it must be at least 1, or null")

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        if min(x.shape[-2:]) < self.size:
            raise ValueError(f"image/patch_grid: an image of {x.shape[-2]}x{x.shape[-1]} is smaller than a tile "
                             f"({self.size}); crop to more before it, or make the view smaller")
        tiles = x.unfold(2, self.size, self.stride).unfold(3, self.size, self.stride)            # [B, C, h, w, s, s]
        return tiles.permute(0, 2, 3, 1, 4, 5).reshape(len(x), -1, x.shape[1], self.size, self.size)
