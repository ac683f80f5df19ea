"""Masked context: what a place knows of the rows above it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from ssl_zoo.ranges import Size


class PixelCNN(nn.Module):
    """Context of CPC v2, ``[B, C, h, w]`` -> same: every place sees its own row and the rows above.

    ``PixelCNN`` of pl_bolts/models/vision/pixel_cnn.py in Lightning-Universe/lightning-bolts@34958a8: residual blocks
    whose vertical kernel of two rows is padded with one row on top, of the value *one*, and a ReLU at the end.

    Args:
        channels: C.
        hidden: Width inside a block.
        blocks: Each lets a place see one row further up.
    """

    def __init__(self, channels: int, hidden: Size = 256, blocks: Size = 5) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(channels, hidden) for _ in range(blocks))

    def forward(self, z: Tensor) -> Tensor:
        for block in self.blocks:
            z = z + block(z)
        return relu(z)


def _block(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, (1, 3)),  # loses a column on each side, which the zeros of the next one restore
        nn.ConstantPad2d((0, 0, 1, 0), 1.0),
        nn.Conv2d(hidden, hidden, (2, 1), padding=(0, 1)),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
    )
