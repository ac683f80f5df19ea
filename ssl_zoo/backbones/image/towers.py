"""Several networks side by side, each for some of the channels: brightness and colour, picture and depth."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.backbones.image.base import ImageBackbone
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.errors import ConfigError


class SideBySide(nn.Module):
    """``[B, C, H, W]`` to the features of all towers, ``[B, V * F]``."""

    def __init__(self, nets: Sequence[nn.Module], channels: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(nets)
        self.channels = [list(group) for group in channels]

    def forward(self, view: Tensor) -> Tensor:
        # Not ``view[:, group]``: a GPU would be waited for while the list is copied there.
        parts = [torch.stack([view[:, channel] for channel in group], dim=1) for group in self.channels]
        return torch.cat([tower(part) for tower, part in zip(self.towers, parts, strict=True)], dim=1)


class Towers(ImageBackbone):
    """Networks of one kind, each of which sees its own channels of a view (CMC, https://arxiv.org/abs/1906.05849).

    The first tower starts as the given network, with the weights of its own channels in the first convolution. The
    others have draws of their own, as the authors'; but all start as the given network where it starts from weights,
    or was built by hand.

    Args:
        backbone: Network for all channels; not changed.
        channels: For each tower the channels that it sees: ``[[0], [1, 2]]`` for L and ab.

    Raises:
        ConfigError: If a channel does not exist, or the network has no convolution that could be narrowed.
    """

    def __init__(self, backbone: Backbone, channels: Sequence[Sequence[int]]) -> None:
        if not isinstance(backbone, ImageBackbone):
            raise ConfigError(f"backbone {backbone.name!r} takes no images, whose channels towers could divide; take "
                              "a ResNet, ConvNeXt or ViT")
        count = backbone.origin.in_channels
        known = all(len(group) and all(0 <= channel < count for channel in group) for group in channels)
        if not known or len(channels) < 2:
            hint = "for L and ab [[0], [1, 2]]" if count > 2 else "which must have two or more (data.channels)"
            raise ConfigError(f"method.channels={[list(group) for group in channels]}: wanted two lists or more of "
                              f"channels 0 to {count - 1} of the views, {hint}")
        drawn = backbone.again is not None and not backbone.pretrained
        nets = [_narrowed(backbone.redrawn() if drawn and i else backbone, group) for i, group in enumerate(channels)]
        step = backbone.size_step
        super().__init__(
            SideBySide(nets, channels),
            Origin("ssl_zoo", f"{__name__}.towers", {"channels": [list(g) for g in channels]}, count, "standard"),
            out_features=len(channels) * backbone.out_features,
            image_size=backbone.fixed_size or -(-backbone.min_size // step) * step,
            min_size=backbone.min_size,
            size_step=step,
            fixed_size=backbone.fixed_size,
        )
        self.image_size = backbone.image_size
        self.channels = [list(group) for group in channels]
        unread = [str(i) for i in range(count) if not any(i in group for group in channels)]
        if unread:
            self.told = (f"method.channels={self.channels}: channels {', '.join(unread)} of {count} are not read",)
        self.width = backbone.out_features

    def built_around(self, network: str, file: str) -> tuple[str, str]:
        return f"from {__name__} import towers\n", f"towers({network}, {self.channels}, weights={file})"


def towers(backbone: Backbone, channels: Sequence[Sequence[int]], weights: str | None = None) -> Towers:
    """:class:`Towers` that start from ``weights``, as ``ssl-zoo export`` writes them."""
    made = Towers(backbone, channels)
    if weights is not None:
        start_from(made, weights)
    return made


def _narrowed(backbone: Backbone, group: Sequence[int]) -> nn.Module:
    """A copy of the network whose first convolution sees only the channels of ``group``."""
    net = copy.deepcopy(backbone.net)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.groups != 1 or first.in_channels != backbone.origin.in_channels:
        raise ConfigError(f"backbone {backbone.name!r} does not begin with a convolution over the channels of the "
                          "views, so that it cannot be made for some of them; take a ResNet, ConvNeXt or ViT")
    first.weight = nn.Parameter(first.weight.detach()[:, list(group)].clone())
    first.in_channels = len(group)
    return net
