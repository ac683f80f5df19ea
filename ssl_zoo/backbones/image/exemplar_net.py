"""The networks of Exemplar-CNN: a few wide convolutions and a fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.ranges import Rate, Size
from ssl_zoo.sides import Side

GRID = 7  # side of the last map that the fully connected layer reads: of images of 32 pixels as it is


class ExemplarNet(nn.Module):
    """``64c5-128c5-256c5-512f`` of https://arxiv.org/abs/1406.6909: 5 x 5 convolutions with ReLU, pooling between them.

    As training_scripts/networks.py of EricArazo/ExemplarCNN@dac9075, without the classifier. The last map of images
    that are not of 32 pixels is averaged to 7 x 7.

    Args:
        channels: Of the convolutions.
        features: Of the fully connected layer.
        dropout: Of the features.
        in_channels: Of a view.
    """

    def __init__(self, channels: Sequence[int], features: int, dropout: float, in_channels: int = 3) -> None:
        super().__init__()
        self.names = [f"conv{i + 1}" for i in range(len(channels))]
        for name, before, width in zip(self.names, [in_channels, *channels], channels, strict=False):
            self.add_module(name, nn.Conv2d(before, width, 5, padding=2))
        self.pool = nn.MaxPool2d(3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(GRID)
        self.fc = nn.Sequential(nn.Linear(channels[-1] * GRID**2, features), nn.ReLU(), nn.Dropout(dropout))
        self.out_features = features

    def chain(self) -> list[nn.Module]:
        """Stages, with the pooling that stands in front of each."""
        first, *others = (nn.Sequential(self.get_submodule(name), nn.ReLU()) for name in self.names)
        return [first, *(nn.Sequential(self.pool, *stage) for stage in others)]

    def forward(self, view: Tensor) -> Tensor:
        x = view
        for i, name in enumerate(self.names):
            x = F.relu(self.get_submodule(name)(self.pool(x) if i else x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def exemplar_small(
    in_channels: Size = 3, image_size: Side = 32, weights: str | None = None, dropout: Rate = 0.5
) -> ImageBackbone:
    """64c5-128c5-256c5-512f: 512 features."""
    return _built("exemplar_small", (64, 128, 256), 512, in_channels, image_size, weights, dropout)


def exemplar_large(
    in_channels: Size = 3, image_size: Side = 32, weights: str | None = None, dropout: Rate = 0.5
) -> ImageBackbone:
    """92c5-256c5-512c5-1024f: 1024 features."""
    return _built("exemplar_large", (92, 256, 512), 1024, in_channels, image_size, weights, dropout)


def _built(
    name: str, channels: Sequence[int], features: int, in_channels: int, image_size: Side, weights: str | None,
    dropout: float,
) -> ImageBackbone:  # fmt: skip
    arguments = {"in_channels": in_channels, "image_size": image_size, "dropout": dropout}
    origin = Origin("ssl_zoo", f"{__name__}.{name}", arguments, in_channels, "exemplar")
    net = ExemplarNet(channels, features, dropout, in_channels)
    backbone = Staged(net, origin, net.out_features, image_size, min_size=8)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
