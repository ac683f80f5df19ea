"""Embedding of an image that was cut into tiles."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ssl_zoo.backbones.apply import tiled


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
        x = tiled(self.tile, features)                                               # [B, P, D]
        x = x.gather(1, order.unsqueeze(2).expand_as(x))
        return self.mix(x.flatten(1))
