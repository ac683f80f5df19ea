"""ResNets without batch statistics: group norm and weight standardisation, or no norm at all.

With them BYOL sees each image by itself, and learns as well: https://arxiv.org/abs/2010.10241 (Sec. 3.3). So its batch
norm is no hidden contrast of the images of a batch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.factories import own_resnet
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side

Norm = Literal["group", "none"]


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1: https://arxiv.org/abs/1903.10520 (eq. 4).

    The variance is the biased one, plus ``eps`` under the root, as in timm's ``StdConv2d``.
    """

    eps = 1e-6

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)  # [O, 1, 1, 1]
        weight = (self.weight - mean) * (variance + self.eps).rsqrt()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def without_batch_norm(net: nn.Module, norm: Norm = "group", groups: int = 16, standardise: bool = True) -> nn.Module:
    """In place: every batch norm becomes another norm that starts with its scale and offset; names stay.

    Args:
        norm: ``group``, or ``none``: the output of the convolution as it is.
        groups: Of channels; a layer whose channels they do not divide takes the largest number that does.
        standardise: Standardise the weights of every convolution.
    """
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            net.set_submodule(path, _other_norm(module, norm, groups))
        elif isinstance(module, nn.Conv2d) and standardise:
            module.__class__ = StandardisedConv2d
    return net


def _other_norm(old: nn.BatchNorm2d, norm: Norm, groups: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    new = nn.GroupNorm(math.gcd(groups, old.num_features), old.num_features)
    new.load_state_dict({"weight": old.weight, "bias": old.bias})
    return new


def resnet8_gn_ws(
    in_channels: Size = 3,
    image_size: Side = 32,
    stem: str = "small",
    weights: str | None = None,
    zero_init_residual: bool = True,
    width: Size = 32,
    norm: Norm = "group",
    groups: Size = 16,
    standardise: bool = True,
) -> ImageBackbone:
    """:func:`ssl_zoo.backbones.image.tiny.resnet8` without batch statistics."""
    net = ResNet(BasicBlock, (1, 1, 1), width, in_channels, zero_init_residual)
    arguments = {"width": width, "norm": norm, "groups": groups, "standardise": standardise}
    return _finish(net, "resnet8_gn_ws", in_channels, image_size, stem, weights, arguments)


def resnet50_gn_ws(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
    norm: Norm = "group",
    groups: Size = 16,
    standardise: bool = True,
) -> ImageBackbone:
    """ResNet-50 with group norm of 16 groups and weight standardisation, as BYOL's authors: 2048 features."""
    net = ResNet(Bottleneck, (3, 4, 6, 3), 64, in_channels, zero_init_residual)
    arguments = {"norm": norm, "groups": groups, "standardise": standardise}
    return _finish(net, "resnet50_gn_ws", in_channels, image_size, stem, weights, arguments)


def _finish(
    net: ResNet, name: str, in_channels: int, image_size: Side, stem: str, weights: str | None, arguments: dict
) -> ImageBackbone:
    said = {"in_channels": in_channels, "image_size": image_size, "stem": stem, **arguments}
    backbone = own_resnet(net, Origin("ssl_zoo", f"{__name__}.{name}", said, in_channels, stem), image_size, None)
    without_batch_norm(backbone.net, **{key: value for key, value in arguments.items() if key != "width"})
    if weights is not None:
        start_from(backbone, weights)
    return backbone
