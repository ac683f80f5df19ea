"""RotNet's encoder for small images: blocks of a convolution and two of 1 x 1, a network in a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side

WIDTH = 192
FIRST = (192, 160, 96)  # channels within the first block
LEAST = 3  # blocks


class NetworkInNetwork(nn.Module):
    """``NetworkInNetwork`` of architectures/ in gidariss/FeatureLearningRotNet@edafaba, without its classifier.

    The first block ends in a max pool, the second in an average pool, both 3 x 3 with stride 2; the others keep the
    size. Convolutions have no bias, and batch norm and ReLU behind them.

    Args:
        blocks: 3, 4 or more; the authors' features for CIFAR-10 are the second of 4.
        in_channels: Of a view.
    """

    def __init__(self, blocks: int = 4, in_channels: int = 3) -> None:
        super().__init__()
        first = nn.Sequential(*_block(in_channels, FIRST, 5), nn.MaxPool2d(3, stride=2, padding=1))
        second = nn.Sequential(*_block(FIRST[-1], (WIDTH,) * 3, 5), nn.AvgPool2d(3, stride=2, padding=1))
        rest = [_block(WIDTH, (WIDTH,) * 3, 3) for _ in range(blocks - 2)]
        self.blocks = nn.ModuleList([first, second, *rest])
        self.fc = nn.Identity()
        self.out_features = WIDTH

    def chain(self) -> list[nn.Module]:
        """Stages, with maps of a half and, from the second on, a quarter of the side of the images."""
        return list(self.blocks)

    def avgpool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def forward(self, view: Tensor) -> Tensor:
        for block in self.blocks:
            view = block(view)
        return self.fc(torch.flatten(self.avgpool(view), 1))


def _block(channels: int, widths: tuple[int, int, int], kernel: int) -> nn.Sequential:
    """Starts as theirs: normal weights of variance ``2 / (kernel^2 * out)``."""
    parts: list[nn.Module] = []
    for width, side in zip(widths, (kernel, 1, 1), strict=True):
        convolution = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        parts += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*parts)


def nin(
    in_channels: Size = 3, image_size: Side = 32, blocks: Size = 4, weights: str | None = None
) -> ImageBackbone:
    """RotNet's network in a network: 192 features, 1 M parameters with 4 blocks.

    Raises:
        ConfigError: For fewer than three blocks.
    """
    if blocks < LEAST:
        raise ConfigError(f"backbone.blocks={blocks} of 'nin': wanted {LEAST} or more (the authors have 3, 4 and 5)")
    origin = Origin(
        "ssl_zoo", f"{__name__}.nin", {"in_channels": in_channels, "image_size": image_size, "blocks": blocks},
        in_channels, "nin",
    )  # fmt: skip
    backbone = Staged(NetworkInNetwork(blocks, in_channels), origin, WIDTH, image_size, min_size=4)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
