"""AMDIM's encoder: residual blocks without norms and padding, so that places see their surroundings only."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size


class Group(NamedTuple):
    """Blocks of one map: the factor of ``ndf`` that their width is, kernel and stride of the first."""

    factor: int
    kernel: int
    stride: int


# Down to a map of 7 x 7, by the side of the images.
DOWN = {
    32: (Group(2, 4, 2), Group(4, 2, 2)),
    64: (Group(2, 4, 2), Group(4, 4, 2), Group(8, 2, 2)),
    128: (Group(2, 4, 2), Group(4, 4, 2), Group(8, 2, 2)),
}


class ConvResidual(nn.Module):
    """Two convolutions without norm, the second 1 x 1, beside the averages of what the first one sees.

    ``ConvResNxN`` of model.py in Philip-Bachman/amdim-public: new channels of the shortcut are zeros, and a narrower
    output takes a convolution for a shortcut. The second convolution starts at 0.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, kernel, stride=stride, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, out, kernel, stride=stride) if out < channels else None
        self.kernel, self.stride, self.new = kernel, stride, out - channels
        nn.init.kaiming_uniform_(self.conv1.weight, a=math.sqrt(5))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(self.relu(self.conv1(x)))
        if self.shortcut is not None:
            return branch + self.shortcut(x)
        return branch + F.pad(F.avg_pool2d(x, self.kernel, self.stride), (0, 0, 0, 0, 0, self.new))


class AMDIMEncoder(nn.Module):
    """``Encoder`` of model.py in Philip-Bachman/amdim-public, without the batch norm behind it, which is AMDIM's.

    Args:
        image_size: 32, 64 or 128 pixels.
        ndf: Channels of the stem.
        n_rkhs: Of the features.
        n_depth: Residual blocks of each group.
        in_channels: Of a view.
    """

    def __init__(self, image_size: int, ndf: int, n_rkhs: int, n_depth: int, in_channels: int = 3) -> None:
        super().__init__()
        down: list[nn.Module] = [_stem(image_size, ndf, in_channels)]
        channels = ndf
        for factor, kernel, stride in DOWN[image_size]:
            down.append(_group(channels, factor * ndf, kernel, stride, n_depth))
            channels = factor * ndf
        self.to7 = nn.Sequential(*down)
        self.to5 = _group(channels, channels, 3, 1, n_depth)
        self.to3 = _group(channels, channels, 3, 1, n_depth)
        self.to1 = ConvResidual(channels, n_rkhs, 3, 1)
        self.fc = nn.Identity()
        self.out_features = n_rkhs

    def chain(self) -> list[nn.Module]:
        """Stages, with maps of 7 x 7, 5 x 5, 3 x 3 and 1 x 1."""
        return [self.to7, self.to5, self.to3, self.to1]

    def avgpool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def forward(self, view: Tensor) -> Tensor:
        x = self.to1(self.to3(self.to5(self.to7(view))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stem(image_size: int, ndf: int, in_channels: int) -> nn.Module:
    """62 x 62 from 64 or 128 pixels, 30 x 30 from 32."""
    if image_size == 128:
        wide = nn.Conv2d(in_channels, ndf, 5, stride=2, padding=2, padding_mode="reflect")
        return nn.Sequential(wide, nn.ReLU(inplace=True), nn.Conv2d(ndf, ndf, 3), nn.ReLU(inplace=True))
    more = [ConvResidual(ndf, ndf, 1, 1)] if image_size == 32 else []
    return nn.Sequential(nn.Conv2d(in_channels, ndf, 3), nn.ReLU(inplace=True), *more)


def _group(channels: int, out: int, kernel: int, stride: int, depth: int) -> nn.Module:
    rest = [ConvResidual(out, out, 1, 1) for _ in range(depth - 1)]
    return nn.Sequential(ConvResidual(channels, out, kernel, stride), *rest)


def amdim_encoder(
    in_channels: Size = 3,
    image_size: Size = 128,
    ndf: Size = 128,
    n_rkhs: Size = 1024,
    n_depth: Size = 3,
    weights: str | None = None,
) -> ImageBackbone:
    """AMDIM's encoder for images of 32, 64 or 128 pixels: ``n_rkhs`` features; 320, 2560, 10 is the authors' largest.

    Raises:
        ConfigError: For images of another size.
    """
    if image_size not in DOWN:
        raise ConfigError(
            f"backbone 'amdim_encoder' got images of {image_size} px, and it is built for {', '.join(map(str, DOWN))}; "
            f"set data.image_size={min(DOWN, key=lambda side: abs(side - image_size))}"
        )
    sizes = {"ndf": ndf, "n_rkhs": n_rkhs, "n_depth": n_depth}
    arguments = {"in_channels": in_channels, "image_size": image_size, **sizes}
    origin = Origin("ssl_zoo", f"{__name__}.amdim_encoder", arguments, in_channels, "amdim")
    net = AMDIMEncoder(image_size, in_channels=in_channels, **sizes)
    backbone = Staged(net, origin, net.out_features, image_size, min_size=32, fixed_size=image_size)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
