"""Many small tiles of one image, stacked: ``[B, C, H, W]`` to ``[B, P, C, size, size]``.

The last operation of a view, whose size is that of a tile; a crop before it gives the size of the whole:
``{image/random_resized_crop: {size: 255}}``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw


@register("image/jigsaw")
class Jigsaw(nn.Module):
    """One tile out of each cell of a grid, in an order of its own for each sample (Noroozi & Favaro 2016,
    https://arxiv.org/abs/1603.09246; with the sizes of PIRL, https://arxiv.org/abs/1912.01991: 255 pixels, 3 x 3 cells
    of 85, tiles of 64).

    Reports ``permutation``: ``[B, grid^2]`` int64; tile i comes from cell ``permutation[:, i]``, counted row by row.

    Args:
        size: side of a tile; a view gives its own.
        grid: cells on each side.
        jitter: a tile lies at most this far from the middle of its cell, in each direction; null: anywhere in the cell.
        shuffle: false leaves the tiles in the order of the cells, for methods that permute what they computed.
    """

    tiles = True

    def __init__(self, size: int, grid: int = 3, jitter: int | None = None, shuffle: bool = True):
        super().__init__()
        if grid < 1 or size < 1 or (jitter is not None and jitter < 0):
            raise ValueError(f"grid is {grid}, size {size}, jitter {jitter}: at least 1, 1, and 0 or null")
        self.size, self.grid, self.jitter, self.shuffle = size, grid, jitter, shuffle

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        cells = self.grid**2
        corners = torch.stack([self._starts(draw, axis, x.shape[2 + axis]) for axis in (0, 1)])  # 2 x [B, P]
        if self.shuffle:
            order = draw.permutation(cells, "order")
        else:
            order = torch.arange(cells, device=x.device).expand(len(x), -1)
        draw.report("permutation", order)
        top, left = corners.gather(2, order.expand(2, -1, -1)).unsqueeze(-1).unbind(0)           # 2 x [B, P, 1]
        window = torch.arange(self.size, device=x.device)
        pixel = ((top + window) * x.shape[3]).unsqueeze(-1) + (left + window).unsqueeze(-2)      # [B, P, s, s]
        channels = x.shape[1]
        index = pixel.view(len(x), 1, -1).expand(-1, channels, -1)
        tiles = x.flatten(2).gather(2, index).view(len(x), channels, cells, self.size, self.size)
        return tiles.transpose(1, 2).contiguous()

    def _starts(self, draw: Draw, axis: int, length: int) -> Tensor:
        """``[B, P]`` first row (axis 0) or column (axis 1) of the tile of each cell."""
        side = length // self.grid
        spare = side - self.size
        reach = 2 * self.jitter if self.jitter is not None else spare
        if not 0 <= reach <= spare:
            jitter = self.jitter or 0
            raise ValueError(f"image/jigsaw: an image side of {length} makes {self.grid} cells of {side}, too small "
                             f"for tiles of {self.size} with jitter {jitter}; crop to at least "
                             f"{self.grid * (self.size + 2 * jitter)} before it, or make the view smaller")
        first = (spare - reach) // 2
        place = (draw.uniform(("place", axis), self.grid**2).double() * (reach + 1)).floor().long()
        cell = torch.arange(self.grid**2, device=place.device)
        cell = cell // self.grid if axis == 0 else cell % self.grid
        return cell * side + first + place


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
