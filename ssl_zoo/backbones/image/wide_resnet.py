"""Wide ResNets for small images, whose blocks normalise before they convolve."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

STRIDES = (1, 2, 2)  # of the three stages
STEM = 16  # channels


class WideBlock(nn.Module):
    """Norm, ReLU and 3 x 3 convolution, twice, beside a shortcut that is a convolution where the widths differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = None if channels == out else nn.Conv2d(channels, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.bn1(x))
        branch = self.conv2(self.relu(self.bn2(self.conv1(active))))
        return branch + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-``depth``-``width``, https://arxiv.org/abs/1605.07146, without classifier; as models/wrn.py of
    HobbitLong/RepDistiller.

    Args:
        depth: Layers, 6 n + 4 for n blocks in each of the three stages.
        width: Factor of the widths 16, 32 and 64 of the stages.
        in_channels: Channels of a view.
    """

    def __init__(self, depth: int, width: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        channels = STEM
        for i, stride in enumerate(STRIDES):
            out = STEM * 2**i * width
            first = WideBlock(channels, out, stride)
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *(WideBlock(out, out, 1) for _ in range(blocks - 1))))
            channels = out
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def chain(self) -> list[nn.Module]:
        """Stages; the last one ends with the norm in front of the pooling."""
        layers = [cast(nn.Sequential, self.get_submodule(f"layer{i + 1}")) for i in range(len(STRIDES))]
        return [nn.Sequential(self.conv1, layers[0]), layers[1], nn.Sequential(layers[2], self.bn, self.relu)]

    def forward(self, view: Tensor) -> Tensor:
        x = self.conv1(view)
        for i in range(len(STRIDES)):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(self.relu(self.bn(x))), 1))
