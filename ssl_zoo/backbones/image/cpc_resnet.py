"""The ResNet of Lightning Bolts' CPC v2: layer norms over whole maps, so that patches know nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Positive, Size

STEM = 64  # channels
STAGES = ((64, 256, 1), (128, 512, 2), (512, 4096, 2), (512, 2048, 2))  # planes, channels at the end, stride
DEPTHS_101 = (3, 4, 46, 3)  # twice as many blocks in the third stage as a ResNet-101 has, four times as wide


class LayerNormBottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution, each with a layer norm over channels and places, beside a shortcut.

    Args:
        channels: Of the input.
        planes: Of the 3 x 3 convolution.
        out: Of the output.
        stride: Of the 3 x 3 convolution, and of the shortcut's projection where there is one.
        side: Of the square input: the norms have a scale and an offset for each place.
    """

    def __init__(self, channels: int, planes: int, out: int, stride: int, side: int) -> None:
        super().__init__()
        small = _strided(side, stride)
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.ln1 = nn.LayerNorm([planes, side, side])
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.ln2 = nn.LayerNorm([planes, small, small])
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.ln3 = nn.LayerNorm([out, small, small])
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.LayerNorm([out, small, small]))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.ln1(self.conv1(x)))
        branch = self.relu(self.ln2(self.conv2(branch)))
        branch = self.ln3(self.conv3(branch))
        return self.relu(branch + (x if self.downsample is None else self.downsample(x)))


class CPCResNet101(nn.Module):
    """``cpc_resnet101`` of cpc/networks.py in Lightning-Universe/lightning-bolts, with the mean over places behind it.

    Args:
        in_channels: Of a view.
        side: Of a square view.
        depths: Blocks of each of the four stages.
    """

    def __init__(self, in_channels: int, side: int, depths: Sequence[int] = DEPTHS_101) -> None:
        super().__init__()
        side = _strided(side, 2)
        self.conv1 = nn.Conv2d(in_channels, STEM, 7, stride=2, padding=3, bias=False)
        self.ln1 = nn.LayerNorm([STEM, side, side])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, side, stages = STEM, _strided(side, 2), []
        for (planes, out, stride), depth in zip(STAGES, depths, strict=True):
            first = LayerNormBottleneck(channels, planes, out, stride, side)
            channels, side = out, _strided(side, stride)
            rest = [LayerNormBottleneck(out, planes, out, 1, side) for _ in range(depth - 1)]
            stages.append(nn.Sequential(first, *rest))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, view: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.ln1(self.conv1(view))))
        return torch.flatten(self.avgpool(self.stages(x)), 1)


def _strided(side: int, stride: int) -> int:
    """Of a map behind a convolution or pooling that keeps the size but for its stride."""
    return (side - 1) // stride + 1


def cpc_resnet101(
    in_channels: Size = 3,
    image_size: Size = 128,
    patch: Positive = 1.0,
    depths: Sequence[Size] = DEPTHS_101,
    weights: str | None = None,
) -> ImageBackbone:
    """Lightning Bolts' ResNet-101 with layer norm: 2048 features of views of one size.

    Args:
        patch: Side of what the network sees over that of an image: ``method.patch`` for CPC v2, which shows it patches.
        depths: Blocks of each of the four stages.

    Raises:
        ConfigError: If ``patch`` is above 1, or there are not four depths.
    """
    if patch > 1:
        raise ConfigError(f"backbone.patch={patch} of 'cpc_resnet101': wanted a share of the image, at most 1")
    if len(depths) != len(STAGES):
        raise ConfigError(f"backbone.depths={list(depths)} of 'cpc_resnet101': wanted {len(STAGES)} numbers of blocks")
    side = max(round(patch * image_size), 1)
    arguments = {"in_channels": in_channels, "image_size": image_size, "patch": patch, "depths": list(depths)}
    origin = Origin("ssl_zoo", f"{__name__}.cpc_resnet101", arguments, in_channels, "layer_norm")
    net = CPCResNet101(in_channels, side, depths)
    backbone = ImageBackbone(net, origin, net.out_features, side, min_size=1, fixed_size=side)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
