"""Networks that a laptop's CPU trains in minutes."""

from __future__ import annotations

from typing import Any

from torchvision.models.resnet import BasicBlock

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.factories import own_resnet, vit
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.ranges import Count, Size
from ssl_zoo.sides import Side


def resnet8(
    in_channels: Size = 3,
    image_size: Side = 32,
    stem: str = "small",
    weights: str | None = None,
    zero_init_residual: bool = True,
    width: Size = 32,
) -> ImageBackbone:
    """Three stages of one basic block: ``width``, ``2 * width``, ``4 * width`` channels; ``4 * width`` features."""
    net = ResNet(BasicBlock, (1, 1, 1), width, in_channels, zero_init_residual)
    arguments = {"in_channels": in_channels, "image_size": image_size, "stem": stem, "width": width}
    origin = Origin("ssl_zoo", f"{__name__}.resnet8", arguments, in_channels, stem)
    return own_resnet(net, origin, image_size, weights)


def vit_mini(
    in_channels: Size = 3,
    image_size: Side = 32,
    stem: str = "small",
    weights: str | None = None,
    embed_dim: Size = 128,
    depth: Count = 4,
    num_heads: Size = 4,
    **arguments: Any,
) -> ImageBackbone:
    """ViT of 4 blocks, 4 heads, 128 features, built as timm's ViT-Ti/16 with other sizes."""
    sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, **arguments}
    return vit("vit_tiny_patch16_224", in_channels, image_size, stem, weights, **sizes)
