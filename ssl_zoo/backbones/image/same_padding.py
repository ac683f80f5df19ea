"""ResNets as BYOL's authors build them in Haiku: the SAME padding of TensorFlow, a projection in every group.

With an even side and a stride of 2, SAME adds one zero more on the right and lower side than on the left and upper one;
torchvision's networks add as many on both.
"""

from __future__ import annotations

import math
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.factories import own_resnet
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side

DEPTHS = {"resnet18_same": (BasicBlock, (2, 2, 2, 2)), "resnet50_same": (Bottleneck, (3, 4, 6, 3))}


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """``[B, C, H, W]`` with zeros around, so that ``ceil(H / stride)`` rows come out; the odd one lies behind."""
    sides: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class SameConv2d(nn.Conv2d):
    """A convolution that pads by :func:`same`, whatever its own padding says."""

    def forward(self, input: Tensor) -> Tensor:
        x = same(input, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SameMaxPool2d(nn.MaxPool2d):
    """The same of a max-pool behind a ReLU, where nothing is below the zeros around."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = cast(int, self.kernel_size), cast(int, self.stride)
        return F.max_pool2d(same(input, kernel, stride), kernel, stride)


def use_same_padding(net: nn.Module) -> None:
    """In place, wherever the stride is not 1; elsewhere the two paddings are one, and the names stay."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1:
            module.__class__ = SameConv2d
        elif isinstance(module, nn.MaxPool2d):
            module.__class__ = SameMaxPool2d


def resnet18_same(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """ResNet-18 of BYOL's authors: 512 features; its first group projects the shortcut too."""
    return _resnet("resnet18_same", in_channels, image_size, stem, weights, zero_init_residual)


def resnet50_same(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """ResNet-50 of BYOL's authors: 2048 features."""
    return _resnet("resnet50_same", in_channels, image_size, stem, weights, zero_init_residual)


def _resnet(
    name: str, channels: int, image_size: Side, stem: str, weights: str | None, zero_init: bool
) -> ImageBackbone:
    block, depths = DEPTHS[name]
    net = ResNet(block, depths, 64, channels, zero_init, project_always=True)
    use_same_padding(net)
    arguments = {"in_channels": channels, "image_size": image_size, "stem": stem}
    return own_resnet(net, Origin("ssl_zoo", f"{__name__}.{name}", arguments, channels, stem), image_size, weights)
