"""One-by-one convolutions that bring maps of different widths into one space, and what ends in it already."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.ranges import Size


class EmbeddingBlock(nn.Module):
    """``[B, C, h, w]`` -> ``[B, width, h, w]``: a residual pair of 1 x 1 convolutions, batch norm at the end.

    ``FakeRKHSConvNet`` of model.py in Philip-Bachman/amdim-public@8754ae1: the residual branch starts at zero and the
    shortcut near the identity where it widens, so that a map starts as itself, normalised.

    Args:
        channels: Of the map, C.
        width: Of the space.
        norm: Also normalise inside the residual branch (``--use_bn`` of the authors).
    """

    def __init__(self, channels: int, width: Size, norm: bool = False) -> None:
        super().__init__()
        inner = [nn.BatchNorm2d(width)] if norm else []
        first, second = nn.Conv2d(channels, width, 1, bias=False), nn.Conv2d(width, width, 1, bias=False)
        self.residual = nn.Sequential(first, *inner, nn.ReLU(inplace=True), second)
        self.shortcut = nn.Conv2d(channels, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.out_features = width
        nn.init.zeros_(second.weight)
        if width >= channels:
            nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
            with torch.no_grad():
                self.shortcut.weight[:channels, :, 0, 0].fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.residual(x) + self.shortcut(x))


class OutputNorm(nn.Module):
    """``[B, C, h, w]`` -> the same, normalised over the batch: for a network that ends in the common space (AMDIM's).

    Args:
        channels: Of the map, C.
        width: Of the space.

    Raises:
        ValueError: If the two differ.
    """

    def __init__(self, channels: int, width: Size) -> None:
        super().__init__()
        if channels != width:
            raise ValueError(
                f"a norm alone leaves {channels} features in a space of {width}; set method.whole=null, or "
                f"method.block.width={channels}"
            )
        self.norm = nn.BatchNorm2d(width)
        self.out_features = width

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)
