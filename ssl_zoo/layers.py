"""Which layer of an encoder is judged: some methods have their best features in the middle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone, backbone_of
from ssl_zoo.errors import ConfigError


class LayerFeatures(nn.Module):
    """The mean over the places of one layer's map: ``[B, C]``; of a transformer, the output as if it ended there.

    Args:
        encoder: With a backbone inside that has maps or tokens.
        layer: 1 is the first stage or block, -1 the last.

    Raises:
        ConfigError: If the backbone has no layers that could be read one by one, or not this one.
    """

    def __init__(self, encoder: nn.Module, layer: int) -> None:
        super().__init__()
        self.backbone = backbone_of(encoder)
        count = layers_of(self.backbone)
        if not isinstance(layer, int) or isinstance(layer, bool) or not 1 <= abs(layer) <= count:
            raise ConfigError(
                f"layer={layer}: backbone {self.backbone.name!r} has the layers 1 to {count}, or counted from the end "
                f"-1 to {-count}; layer=null judges the method's features"
            )
        self.layer = layer if layer > 0 else count + 1 + layer
        self.count = count

    @property
    def dtype(self) -> torch.dtype:
        return next(self.backbone.parameters()).dtype

    def embed(self, view: Any) -> Tensor:
        if self.backbone.has_tokens:
            depth = self.count + 1 - self.layer
            return self.backbone.forward_tokens(view, layers=depth).features.chunk(depth, dim=1)[0]
        return self.backbone.forward_maps(view)[self.layer - 1].mean((2, 3))


def read_at(method: Any, layer: int | None) -> Any:
    """What ``embed`` is called of: the method, whose features are judged; or a layer of its encoder."""
    return method if layer is None else LayerFeatures(method.encoder, layer)


@torch.no_grad()
def layers_of(backbone: Backbone) -> int:
    """How many layers can be read: the blocks of a transformer, or the maps of another network.

    Raises:
        ConfigError: If there are neither.
    """
    if backbone.has_tokens:
        return len(backbone.net.blocks)  # type: ignore[arg-type]
    backbone.require_maps("layer (null judges the method's features)")
    modes = [(part, part.training) for part in backbone.modules()]
    backbone.eval()
    first = next(backbone.parameters())
    try:
        return len(backbone.forward_maps(backbone.example().to(first.device, first.dtype)))
    finally:
        for part, training in modes:
            part.training = training
