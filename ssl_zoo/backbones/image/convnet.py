"""Networks with feature maps."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torchvision import models

from ssl_zoo.backbones.base import Dense
from ssl_zoo.backbones.image.base import ImageBackbone


class Staged(ImageBackbone):
    """A network that is a chain of stages with one map each: ResNets and ConvNeXts."""

    @property
    def has_maps(self) -> bool:
        return True

    def stages(self) -> list[nn.Module]:
        parts = split(self.net)
        assert parts is not None  # the factories choose this class only then
        return parts

    def forward_maps(self, view: Tensor) -> list[Tensor]:
        self.check(view)
        maps = []
        for stage in self.stages():
            view = stage(view)
            maps.append(view)
        return maps

    @property
    def has_dense(self) -> bool:
        return True

    def forward_dense(self, view: Tensor) -> Dense:
        last = self.forward_maps(view)[-1]  # [B, F, h, w]
        return Dense(_pool(self.net, last), last.flatten(2).mT, (last.shape[2], last.shape[3]))


class TimmMaps(ImageBackbone):
    """Any other timm network that can give its intermediate maps."""

    @property
    def has_maps(self) -> bool:
        return True

    def forward_maps(self, view: Tensor) -> list[Tensor]:
        self.check(view)
        return cast(Any, self.net).forward_intermediates(view, intermediates_only=True)


def _pool(net: nn.Module, last: Tensor) -> Tensor:
    """What the network makes of its last map ``[B, F, h, w]``: ``[B, F]``."""
    parts = cast(Any, net)
    if hasattr(net, "forward_head"):  # timm's
        return parts.forward_head(last, pre_logits=True)
    pooled = parts.avgpool(last)
    return parts.classifier(pooled) if isinstance(net, models.ConvNeXt) else parts.fc(pooled.flatten(1))


def split(net: nn.Module) -> list[nn.Module] | None:
    """Cut a ResNet or ConvNeXt (torchvision's, timm's or ours) into its stages; None for another kind of network."""
    parts = cast(Any, net)
    if hasattr(net, "chain"):  # ours that are no plain ResNets
        return list(parts.chain())
    layers = [child for name, child in net.named_children() if name.startswith("layer")]
    if layers and hasattr(net, "conv1") and hasattr(net, "maxpool"):
        activation = parts.act1 if hasattr(net, "act1") else parts.relu  # timm calls it act1
        return [nn.Sequential(parts.conv1, parts.bn1, activation, parts.maxpool, layers[0]), *layers[1:]]
    if isinstance(net, models.ConvNeXt):  # eight children: stem or down-sampling, blocks, ...
        return [parts.features[i : i + 2] for i in range(0, len(parts.features), 2)]
    if type(net).__name__ == "ConvNeXt":  # timm's, told by name: ResNets need not wait for the import of timm
        return [nn.Sequential(parts.stem, parts.stages[0]), *parts.stages[1:]]
    return None
