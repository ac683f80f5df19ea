"""Network in Network, on which RotNet compares the features of its blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side

FIRST = (192, 160, 96)  # channels of the first block's three convolutions
WIDTH = 192


class NIN(nn.Module):
    """Blocks of three convolutions each, of which the second and third see one place alone; the first two pool.

    ``architectures/NetworkInNetwork.py`` of gidariss/FeatureLearningRotNet@edafaba with ``use_avg_on_conv3=False``.

    Args:
        blocks: At least 3.
        in_channels: Of the views.
    """

    def __init__(self, blocks: int, in_channels: int) -> None:
        super().__init__()
        pools = (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1))
        widths = [FIRST, *[(WIDTH,) * 3] * (blocks - 1)]
        before = [in_channels, FIRST[-1], *[WIDTH] * (blocks - 2)]
        made = []
        for i, (channels, width) in enumerate(zip(before, widths, strict=True)):
            convolutions = _block(channels, width, 5 if i < len(pools) else 3)
            made.append(nn.Sequential(convolutions, pools[i]) if i < len(pools) else convolutions)
        self.blocks = nn.ModuleList(made)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()

    def chain(self) -> list[nn.Module]:
        return list(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.fc(self.avgpool(x).flatten(1))


def _block(channels: int, widths: Sequence[int], kernel: int) -> nn.Sequential:
    """Convolutions without bias, each with batch norm and ReLU; the first alone sees neighbours."""
    parts: list[nn.Module] = []
    for i, width in enumerate(widths):
        side = kernel if i == 0 else 1
        convolution = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
        nn.init.normal_(convolution.weight, std=math.sqrt(2 / (side * side * width)))
        parts += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*parts)


def nin(
    in_channels: Size = 3, image_size: Side = 32, stem: str = "small", weights: str | None = None, blocks: Size = 4
) -> ImageBackbone:
    """RotNet's network for CIFAR-10: 192 features; maps of 16 x 16, then 8 x 8 from images of 32 pixels.

    Args:
        blocks: RotNet has 3, 4 or 5.

    Raises:
        ValueError: For fewer than three blocks.
        ConfigError: For another stem.
    """
    if blocks < 3:
        raise ValueError(f"backbone.blocks={blocks}: a Network in Network has three blocks or more")
    if stem != "small":
        raise ConfigError(f"backbone.stem={stem} of 'nin': a network for small images; set backbone.stem=small")
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem, "blocks": blocks}
    origin = Origin("ssl_zoo", f"{__name__}.nin", arguments, in_channels, stem)
    backbone = Staged(NIN(blocks, in_channels), origin, WIDTH, image_size, min_size=4, classifier=("fc",))
    if weights is not None:
        start_from(backbone, weights)
    return backbone
