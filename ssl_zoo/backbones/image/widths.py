"""ResNets of other widths and shortcuts than the libraries': halves for several sensors, wide ones for small images."""

from __future__ import annotations

from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.image.factories import own_resnet
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.backbones.image.wide_resnet import WideResNet
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side


def resnet18_projected(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """ResNet-18 whose first group projects its shortcut as the others do: 512 features.

    SimCLR's for CIFAR-10 (tf2/resnet.py of google-research/simclr@383d414, ``use_projection``).
    """
    net = ResNet(BasicBlock, (2, 2, 2, 2), 64, in_channels, zero_init_residual, project_always=True)
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem}
    origin = Origin("ssl_zoo", f"{__name__}.resnet18_projected", arguments, in_channels, stem)
    return own_resnet(net, origin, image_size, weights)


def resnet50_half(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """ResNet-50 with stages of half the width behind a stem of 64 channels: 1024 features.

    A tower of CMC's ``resnet50v1`` (models/resnet.py of HobbitLong/CMC, ``is_half``).
    """
    net = ResNet(Bottleneck, (3, 4, 6, 3), 32, in_channels, zero_init_residual, stem_width=64)
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem}
    origin = Origin("ssl_zoo", f"{__name__}.resnet50_half", arguments, in_channels, stem)
    return own_resnet(net, origin, image_size, weights)


def wrn_16_2(
    in_channels: Size = 3, image_size: Side = 32, stem: str = "small", weights: str | None = None
) -> ImageBackbone:
    """WRN-16-2, https://arxiv.org/abs/1605.07146: 128 features; the stem keeps the size of the image."""
    return _wide("wrn_16_2", 16, in_channels, image_size, stem, weights)


def wrn_40_2(
    in_channels: Size = 3, image_size: Side = 32, stem: str = "small", weights: str | None = None
) -> ImageBackbone:
    """WRN-40-2: as WRN-16-2, with six blocks in each stage instead of two."""
    return _wide("wrn_40_2", 40, in_channels, image_size, stem, weights)


def _wide(name: str, depth: int, in_channels: int, image_size: Side, stem: str, weights: str | None) -> ImageBackbone:
    if stem != "small":
        raise ConfigError(f"backbone.stem={stem} of {name!r}: a network for small images; set backbone.stem=small")
    net = WideResNet(depth, 2, in_channels)
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem}
    origin = Origin("ssl_zoo", f"{__name__}.{name}", arguments, in_channels, stem)
    backbone = Staged(net, origin, net.out_features, image_size, min_size=4, classifier=("fc",))
    if weights is not None:
        start_from(backbone, weights)
    return backbone
