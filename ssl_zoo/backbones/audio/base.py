"""What networks of recordings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.errors import ConfigError
from ssl_zoo.samples import described, shape_of


class AudioBackbone(Backbone):
    """A network of windows ``[B, C, T]``.

    Args:
        net, origin, out_features: As of :class:`Backbone`; ``origin`` names the channels.
        shortest: Samples that a window has at least.
    """

    def __init__(self, net: nn.Module, origin: Origin, out_features: int, shortest: int) -> None:
        super().__init__(net, origin, out_features)
        self.shortest = shortest

    def check(self, view: Tensor) -> None:
        channels = self.origin.in_channels
        if len(shape_of(view)) != 3 or view.shape[1] != channels:
            raise ConfigError(f"backbone {self.name!r} got a view {described(view)}, wanted windows [B, {channels}, T]")
        if view.shape[2] < self.shortest:
            raise ConfigError(
                f"backbone {self.name!r} got windows of {view.shape[2]} samples, wanted at least {self.shortest}; set "
                f"augmentation.window={self.shortest} or more"
            )

    def example(self) -> Tensor:
        length = max(self.shortest, 4096)
        return torch.randn(2, self.origin.in_channels, length, generator=torch.Generator().manual_seed(0))

    def preprocessing(self, config: Mapping[str, Any]) -> dict[str, Any]:
        words = f"[B, {self.origin.in_channels}, L], float in [-1, 1] at {self.origin.arguments['sample_rate']} Hz"
        return {"input": words, **super().preprocessing(config)}
