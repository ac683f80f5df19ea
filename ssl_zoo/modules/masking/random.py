"""Masks of patches that are drawn one by one (MAE) or in square blocks of a fixed raster (SimMIM)."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Masking(NamedTuple):
    """Which of N patches stay, for each of B samples."""

    keep: Tensor  # [B, K] int64, the patches that stay, in the order of their noise
    mask: Tensor  # [B, N] bool, true = removed
    restore: Tensor  # [B, N] int64, place of each patch in the sequence (kept, removed)


def random_masking(noise: Tensor, ratio: float) -> Masking:
    """Keep the patches with the smallest noise: ``random_masking`` of models_mae.py, facebookresearch/mae@efb2a80.

    Args:
        noise: ``[B, N]`` uniform.
        ratio: Share that is removed, in [0, 1); ``int(N * (1 - ratio))`` stay.

    Raises:
        ValueError: If no patch would stay, or ``ratio`` is out of range.
    """
    patches = noise.shape[1]
    kept = int(patches * (1 - ratio))
    if not 0 <= ratio < 1 or kept < 1:
        raise ValueError(
            f"mask_ratio={ratio} keeps {kept} of {patches} patches; wanted a share from 0 to 1 that leaves at least one"
        )
    order = noise.argsort(dim=1, stable=True)  # [B, N]
    restore = order.argsort(dim=1)
    return Masking(order[:, :kept], restore >= kept, restore)


def random_blocks(noise: Tensor, grid: tuple[int, int], block: int, ratio: float) -> Tensor:
    """Hide squares of patches: ``MaskGenerator`` of data_simmim.py, microsoft/SimMIM@0e71746.

    Args:
        noise: ``[B, n]`` uniform, one number for each of the ``n = h * w / block^2`` squares, row by row.
        grid: Rows h and columns w of patches.
        block: Side of a square in patches (SimMIM: 32 px, two patches of a ViT/16).
        ratio: Share of the squares that is hidden, rounded up.

    Returns:
        ``[B, h * w]`` bool, true = hidden.

    Raises:
        ValueError: If squares do not tile the grid.
    """
    rows, columns = block_grid(grid, block)
    if noise.shape[1] != rows * columns:
        raise ValueError(f"noise has {noise.shape[1]} numbers a sample, wanted {rows * columns}: one a square")
    hidden = noise.argsort(dim=1, stable=True).argsort(dim=1) < math.ceil(rows * columns * ratio)  # [B, n]
    squares = hidden.view(-1, rows, columns)
    return squares.repeat_interleave(block, 1).repeat_interleave(block, 2).flatten(1)


def block_grid(grid: tuple[int, int], block: int) -> tuple[int, int]:
    """Rows and columns of squares of ``block`` patches; ValueError if they do not tile the grid."""
    if block < 1 or grid[0] % block or grid[1] % block:
        sides = [side for side in range(1, min(grid) + 1) if not grid[0] % side and not grid[1] % side]
        raise ValueError(
            f"mask_block={block}: squares of so many patches do not tile {grid[0]} x {grid[1]} patches; these do: "
            f"{', '.join(map(str, sides))}"
        )
    return grid[0] // block, grid[1] // block

