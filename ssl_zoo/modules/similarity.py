"""How alike two vectors are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.losses.local_contrast import tanh_clip
from ssl_zoo.losses.precision import full_precision
from ssl_zoo.ranges import NonNegative, Positive


class Similarity(nn.Module):
    """Scores ``[..., A, K]`` of vectors ``[..., A, D]`` and ``[..., K, D]``, never in half precision; and a penalty.

    Args:
        width: D.
        temperature: By which products are divided; None: the root of the width. Distances do without it.
        unit: Compare unit vectors: the cosine.
        trained: A matrix between them, ``a W b`` (eq. 3 of https://arxiv.org/abs/1807.03748), at first the identity.
        clip, penalty: Soft limit of the scores, and weight of the mean squared product before it (AMDIM).
    """

    def __init__(
        self,
        width: int,
        temperature: Positive | None = None,
        unit: bool = False,
        trained: bool = False,
        clip: Positive | None = None,
        penalty: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.temperature = math.sqrt(width) if temperature is None else temperature
        self.weight = nn.Parameter(torch.eye(width)) if trained else None
        self.unit, self.clip, self.penalty = unit, clip, penalty

    def embed(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.unit else x

    @full_precision
    def forward(self, a: Tensor, b: Tensor, remembered: bool = False) -> tuple[Tensor, Tensor]:
        """``remembered``: ``b`` was embedded when it was kept."""
        a = self.embed(a) if self.weight is None else self.embed(a) @ self.weight.to(a.dtype)
        products = a @ (b if remembered else self.embed(b)).mT / self.temperature
        penalty = self.penalty * products.square().mean() if self.penalty else products.new_zeros(())
        return tanh_clip(products, self.clip), penalty

    @full_precision
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared distance ``[..., D]``: ``2 - 2 cos`` of unit vectors."""
        return (self.embed(a) - self.embed(b)).square().sum(-1).mean()


def offers(unit: bool = False, trained: bool = False, clip: float | None = None, **others: object) -> frozenset[str]:
    """What the similarity of these settings can be used for: distances, plain products, prototypes on the sphere."""
    metric = not trained and clip is None
    kinds = {"distance": metric, "sphere": metric and unit, "product": metric and not unit}
    return frozenset(kind for kind, there in kinds.items() if there)


def described(settings: Mapping[str, object]) -> str:
    """The settings of a similarity that are not null, false or 0, in words."""
    return ", ".join(f"{key}={value}" for key, value in settings.items() if value and not key.startswith("_")) or "dot"
