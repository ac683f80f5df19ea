"""Embedding of an image that was cut into tiles."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_zoo.backbones.apply import tiled


def arranged(tiles: Tensor, order: Tensor) -> Tensor:
    """Tiles, or what stands for them, ``[B, P, ...]`` in the order ``[B, P]``: which comes first, second, ...."""
    index = order.view(*order.shape, *(1,) * (tiles.ndim - 2)).expand_as(tiles)
    return tiles.gather(1, index)


class JigsawHead(nn.Module):
    """Project every tile, put the tiles of an image in an order of its own, and mix them into one embedding.

    ``JigsawHead`` of pycontrast/networks/util.py, HobbitLong/PyContrast@84f94ea; Sec. 3 of PIRL,
    https://arxiv.org/abs/1912.01991.

    Args:
        tile: Head for one tile, with ``out_features``.
        tiles: Tiles of an image, P.
    """

    def __init__(self, tile: Any, tiles: int) -> None:
        super().__init__()
        self.tile = tile
        self.tiles = tiles
        self.out_features: int = tile.out_features
        self.mix = nn.Linear(tiles * tile.out_features, tile.out_features)

    def forward(self, features: Tensor, order: Tensor) -> Tensor:
        """``[B, P, F]`` features of the tiles, and ``[B, P]``: which tile comes first, second, ... -> ``[B, D]``."""
        x = arranged(tiled(self.tile, features), order)                              # [B, P, D]
        return self.mix(x.flatten(1))
