"""SimCLR v2's networks: ResNets of any depth and width, with selective kernels and the stem of ResNet-D."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import ResNet as TimmResNet
from timm.models.sknet import SelectiveKernelBottleneck
from torch import nn
from torchvision.models.resnet import Bottleneck

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.image.factories import STEMS, no_padded_stem, own_resnet
from ssl_zoo.backbones.image.resnet import ResNet
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Size
from ssl_zoo.sides import Side

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
RATIO, LEAST = 0.0625, 32  # of a selective kernel's inner width, and its lower bound


class _Block(SelectiveKernelBottleneck):
    """timm's bottleneck with the authors' selective kernel: two 3 x 3 paths that both see the whole input."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, **kwargs: Any) -> None:
        inner = max(int(planes * RATIO), LEAST)
        kernel = {"kernel_size": [3, 3], "split_input": False, "rd_channels": inner}
        super().__init__(inplanes, planes, stride, downsample, sk_kwargs=kernel, **kwargs)


def resnet_sk(
    in_channels: Size = 3,
    image_size: Side = 224,
    stem: str = "standard",
    weights: str | None = None,
    depth: int = 50,
    width: Size = 1,
    selective: bool = True,
    zero_init_residual: bool = True,
) -> ImageBackbone:
    """A network of SimCLR v2, https://arxiv.org/abs/2006.10029 Table 1: ``2048 * width`` features.

    Parameters are those of ``tf2/resnet.py`` in google-research/simclr@383d414 to the last one, from 35,215,584
    (ResNet-50, 1x, SK) to 794,704,160 (ResNet-152, 3x, SK). Their first values are the library's (Kaiming, fan out),
    the authors' variance scaling is fan in; strided convolutions pad one pixel on both sides, as theirs do.

    Args:
        stem: ``standard``: three 3 x 3 convolutions and a max-pool (ResNet-D), one 7 x 7 without selective kernels;
            ``small``: one 3 x 3 convolution of stride 1.
        depth: 50, 101 or 152.
        width: Factor of every width, the stem's too: 1, 2 or 3.
        selective: Selective kernels (https://arxiv.org/abs/1903.06586) and average-pooled shortcuts; without them a
            plain ResNet v1.5.

    Raises:
        ConfigError: If there is no network of this depth, width or stem.
    """
    if depth not in DEPTHS:
        raise ConfigError(f"backbone.depth={depth}: SimCLR v2's networks have {', '.join(map(str, DEPTHS))} layers")
    if width < 1:
        raise ConfigError(f"backbone.width={width}: wanted a factor of every width, 1, 2 or 3 (not channels)")
    require("backbone.stem", stem, STEMS, ConfigError)
    arguments: dict[str, Any] = {"in_channels": in_channels, "image_size": image_size, "stem": stem}
    arguments |= {"depth": depth, "width": width, "selective": selective}
    origin = Origin("ssl_zoo", f"{__name__}.resnet_sk", arguments, in_channels, stem)
    if not selective:
        plain = ResNet(Bottleneck, DEPTHS[depth], 64 * width, in_channels, zero_init_residual)
        return own_resnet(plain, origin, image_size, weights)
    if stem == "small_padded":
        raise no_padded_stem("resnet_sk")
    net: Any = TimmResNet(
        _Block,  # type: ignore[arg-type]
        DEPTHS[depth],  # type: ignore[arg-type]
        num_classes=0,
        in_chans=in_channels,
        stem_type="deep",
        stem_width=32 * width,
        avg_down=True,
        channels=tuple(64 * width * 2**i for i in range(4)),
        zero_init_last=zero_init_residual,
    )
    if stem == "small":
        net.conv1 = nn.Conv2d(in_channels, 64 * width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    least = 32 if stem == "standard" else 8
    backbone = Staged(net, origin, net.num_features, image_size, min_size=least, classifier=("fc",))
    if weights is not None:
        start_from(backbone, weights)
    return backbone
