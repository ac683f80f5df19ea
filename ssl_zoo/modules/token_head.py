"""The head of iBOT: one for the class token and the patches, up to the last layer or with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ssl_zoo.modules.dino_head import DINOHead, WeightNormLinear
from ssl_zoo.modules.heads import Norm
from ssl_zoo.ranges import Size


class TokenHead(DINOHead):
    """``iBOTHead`` in models/head.py of bytedance/ibot@da316d8: DINO's head with an own last layer for patches, or not.

    Names of parameters are the authors': ``mlp.*``, ``last_layer.*``, and ``last_layer2.*`` if patches have their own.

    Args:
        in_features, hidden, bottleneck, out_features, norm, norm_last_layer: As :class:`DINOHead`.
        shared: Patches and class tokens share the last layer; otherwise only what is before it.
        patch_features: Scores for patches where not shared; null: as many as ``out_features``.

    Raises:
        ValueError: If ``patch_features`` differ although the layer is shared.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[Size] = (2048, 2048),
        bottleneck: Size = 256,
        out_features: Size = 8192,
        norm: Norm = "none",
        norm_last_layer: bool = True,
        shared: bool = True,
        patch_features: Size | None = None,
    ) -> None:
        super().__init__(in_features, hidden, bottleneck, out_features, norm, norm_last_layer)
        self.patch_features = patch_features or out_features
        if shared and self.patch_features != out_features:
            raise ValueError(
                f"projector: patch_features={patch_features} with shared=true, where patches have the "
                f"{out_features} scores of the class token; set shared=false or patch_features=null"
            )
        layer = None if shared else WeightNormLinear(bottleneck, self.patch_features, norm_last_layer)
        self.last_layer2: nn.Module | None = layer

    def patches(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` patch tokens -> scores ``[..., patch_features]``."""
        layer = self.last_layer if self.last_layer2 is None else self.last_layer2
        return cast(Tensor, layer(self.embed(x)))

    def tied(self) -> TokenHead:
        """This head, with its own parameters, but patches through the class token's last layer."""
        head = copy.copy(self)
        head._modules = {**self._modules, "last_layer2": None}
        head.patch_features = self.out_features
        return head
