"""Images as sequences: columns of overlapping patches, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ssl_zoo.augmentations.image.patches import PatchGrid
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Frames
from ssl_zoo.modules.heads import Head


def patch_grid(network: Callable[[Tensor], Tensor], view: Tensor, side: int) -> Tensor:
    """Features of the patches ``[B, P, C, s, s]``, or of an image ``[B, C, H, W]``: ``[B, F, G, G]``.

    Args:
        network: Of a patch.
        view: Patches or images.
        side: Of a patch; neighbours overlap by half.
    """
    patches = view if view.ndim == 5 else PatchGrid(side)(view, Draw(0, None))
    rows = round(patches.shape[1] ** 0.5)
    return tiled(network, patches).mT.unflatten(2, (rows, rows))


def patches_of(size: int, patch: float, name: str = "method.patch") -> tuple[int, int]:
    """Side of a patch, and rows of patches, of a square image.

    Args:
        size: Of the image.
        patch: Side of a patch over that of the image; neighbours overlap by half.
        name: Of that setting.

    Raises:
        ValueError: If there are fewer than 3 rows, of which the second one below is the first to be predicted.
    """
    side = max(round(patch * size), 1)
    rows = (size - side) // max(side // 2, 1) + 1
    if rows < 3:
        raise ValueError(
            f"{name}={patch} cuts images of {size} px into {rows} rows of patches; wanted 3 or more rows: "
            f"set {name} to 0.5 or less"
        )
    return side, rows


class PatchRows(nn.Module):
    """The columns of a grid of patches, whose context is a network that sees no row below.

    The row below a place overlaps with it, so that the first row to be predicted is the second one below: row t of the
    context stands beside row t + 1 of the features.

    Args:
        width: F, of the features.
        context: Called with F: ``[B, F, G, G]`` to the same, each place from its own row and those above.
        size: Of the square image.
        patch: Side of a patch over that of the image.

    Raises:
        ValueError: If the grid has fewer than 3 rows.
    """

    def __init__(self, width: int, context: Head, size: int, patch: float) -> None:
        super().__init__()
        self.side, rows = patches_of(size, patch)
        self.frames = rows - 1
        self.context = context(width)

    def forward(self, network: Callable[[Tensor], Tensor], view: Tensor) -> Frames:
        """Views as :func:`patch_grid` takes them: pooled ``[B, F]``, and sequences ``[B * G, G - 1, F]``."""
        grid = patch_grid(network, view, self.side)                                  # [B, F, G, G]
        return Frames(grid.mean((2, 3)), columns(grid)[:, 1:], columns(self.context(grid))[:, :-1])


def columns(grid: Tensor) -> Tensor:
    """``[B, F, h, w]`` -> ``[B * w, h, F]``."""
    return grid.permute(0, 3, 2, 1).flatten(0, 1)
