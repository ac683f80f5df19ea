"""Features of more than the last block of a transformer."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.errors import ConfigError


class LastLayers(nn.Module):
    """Class tokens after the last L blocks side by side, earliest first: ``[B, L * F]``.

    What DINO's authors classify linearly: L = 4 for ViT-S (``eval_linear.py --n_last_blocks`` of facebookresearch/
    dino@7c446df). The mean over the patches, where there is no class token.

    Args:
        encoder: With a vision transformer inside.
        layers: L.

    Raises:
        ConfigError: If the network has no tokens, or fewer blocks.
    """

    def __init__(self, encoder: nn.Module, layers: int) -> None:
        super().__init__()
        self.backbone = backbone_of(encoder)
        self.layers = layers
        self.backbone.require_tokens(f"layers={layers}")
        blocks = len(self.backbone.net.blocks)  # type: ignore[arg-type]
        if not 1 <= layers <= blocks:
            raise ConfigError(f"layers={layers}: backbone {self.backbone.name!r} has 1 to {blocks}")

    def embed(self, view: Tensor) -> Tensor:
        return self.backbone.forward_tokens(view, layers=self.layers).features
