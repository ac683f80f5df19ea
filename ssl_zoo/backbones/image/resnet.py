"""ResNet of any width and number of stages with torchvision's state names, and the stem for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_zoo.errors import ConfigError


class ResNet(nn.Module):
    """ResNet v1.5, https://arxiv.org/abs/1512.03385, without classifier; equals torchvision's at ``width=64``.

    SimCLR (https://arxiv.org/abs/2002.05709, its ``resnet.py``) multiplies every width, the stem's too, where the
    libraries' "wide" ResNets only widen the 3 x 3 convolutions.

    Args:
        block: torchvision's ``BasicBlock`` or ``Bottleneck``.
        depths: Blocks per stage; stage i has ``width * 2**i`` planes.
        width: Planes of the first stage, and channels of the stem.
        in_channels: Channels of a view.
        zero_init_residual: Start each residual branch at zero (https://arxiv.org/abs/1706.02677, Sec. 5.1).
        stem_width: Channels of the stem where they are not ``width`` (CMC: 64 before stages of half the width).
        project_always: The first block of every stage projects its shortcut, also where nothing changes (Haiku's).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        width: int = 64,
        in_channels: int = 3,
        zero_init_residual: bool = True,
        stem_width: int | None = None,
        project_always: bool = False,
    ) -> None:
        super().__init__()
        channels, self.layers = stem_width or width, len(depths)
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        for i, depth in enumerate(depths):
            planes = width * 2**i
            stage = _stage(block, channels, planes, depth, 1 if i == 0 else 2, project_always)
            self.add_module(f"layer{i + 1}", stage)
            channels = planes * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        self.out_features = channels
        self._init_weights(zero_init_residual)

    def _init_weights(self, zero_init_residual: bool) -> None:
        """torchvision's initialisation (batch norms start at one and zero by themselves)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, (BasicBlock, Bottleneck)):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.zeros_(last.weight)

    def forward(self, view: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(view))))
        for i in range(self.layers):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, depth: int, stride: int, project: bool
) -> nn.Sequential:
    out = planes * block.expansion
    shortcut = None
    if project or stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
    rest = [block(out, planes) for _ in range(depth - 1)]
    return nn.Sequential(block(channels, planes, stride, shortcut), *rest)


def use_small_stem(net: nn.Module, name: str, padding: int = 1) -> None:
    """In place: a 3 x 3 convolution of stride 1 and no max-pool, as SimCLR App. B.9 for CIFAR; the names stay.

    Args:
        padding: 2 makes maps of 34 x 34 from 32 x 32 pixels, as solo-learn's CIFAR runs (``solo/methods/base.py``).

    Raises:
        ConfigError: If the stem is not one convolution (the "deep" stems of timm's ResNet-C and -D).
    """
    old = cast(Any, net).conv1
    if not isinstance(old, nn.Conv2d):
        raise ConfigError(
            f"backbone {name!r} has a stem of several convolutions, which backbone.stem=small cannot replace; "
            "set backbone.stem=standard or take a plain ResNet (resnet18, resnet50)"
        )
    device = old.weight.device
    conv = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=padding, bias=False, device=device)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    net.conv1, net.maxpool = conv, nn.Identity()
