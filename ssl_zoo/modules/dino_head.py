"""The head of DINO and its successors: an MLP to a unit bottleneck, then a weight-normalised layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.losses.precision import autocast_off, promoted
from ssl_zoo.modules.heads import MLP, Norm
from ssl_zoo.ranges import Size


class WeightNormLinear(nn.Module):
    """``W = g * v / |v|`` per output, without bias: ``[..., in_features]`` -> ``[..., out_features]``.

    Parameters are named as by ``torch.nn.utils.weight_norm``, which the authors use, so that their weights load; unlike
    it, the layer can be deep-copied into a teacher after a forward pass.

    Args:
        norm_fixed: The norms ``g`` stay 1; otherwise they start at 1 and are trained.
    """

    def __init__(self, in_features: int, out_features: int, norm_fixed: bool = True) -> None:
        super().__init__()
        start = nn.Linear(in_features, out_features, bias=False).weight.detach()  # torch's own start, as the authors'
        self.weight_g = nn.Parameter(torch.ones(out_features, 1), requires_grad=not norm_fixed)
        self.weight_v = nn.Parameter(start)

    @property
    def weight(self) -> Tensor:
        return promoted(self.weight_g) * F.normalize(promoted(self.weight_v), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Never in half precision: the scores are divided by 0.04 before an exponential."""
        with autocast_off():
            weight = self.weight
            return F.linear(x.to(weight.dtype), weight)


class DINOHead(nn.Module):
    """``DINOHead`` in vision_transformer.py of facebookresearch/dino@7c446df: scores against K unit prototypes.

    Names of parameters are the authors': ``mlp.0.weight``, ..., ``last_layer.weight_v``.

    Args:
        in_features: Width of the input ``[..., in_features]``.
        hidden: Widths of the hidden layers, GELU after each.
        bottleneck: Width of the unit vectors that the last layer sees.
        out_features: Scores K.
        norm: After each hidden layer: none, or batch (ResNets; input then ``[B, in_features]``).
        norm_last_layer: Keep the norms of the last layer's rows at 1: more stable; DINOv2 and the best runs of DINO's
            ViT-S train them.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[Size] = (2048, 2048),
        bottleneck: Size = 256,
        out_features: Size = 65536,
        norm: Norm = "none",
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = MLP(in_features, hidden, bottleneck, norm, last_bias=True, activation="gelu", init_std=0.02)
        self.last_layer = WeightNormLinear(bottleneck, out_features, norm_last_layer)
        self.out_features = out_features

    def embed(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` -> unit vectors ``[..., bottleneck]``."""
        rows = self.mlp(x.reshape(-1, x.shape[-1]))  # batch norm takes tokens as samples
        return F.normalize(rows, dim=-1).view(*x.shape[:-1], rows.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` -> scores ``[..., out_features]``."""
        return self.last_layer(self.embed(x))
