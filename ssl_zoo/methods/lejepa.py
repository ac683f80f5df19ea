"""LeJEPA: views of an image agree, and all embeddings together look like a standard normal distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import mean_over_ranks, world_size
from ssl_zoo.losses.sigreg import agreement, epps_pulley, normal_knots, shadows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size
from ssl_zoo.signatures import view_counts


class LeJEPA(Method):
    """LeJEPA, Balestriero, LeCun 2025, https://arxiv.org/abs/2511.08544; no teacher, no stop-gradient.

    As ``MINIMAL.md`` of rbalestr-lab/lejepa@eddffdd, without the 512-wide linear layer that it has between network and
    projector. The same authors' stable-pretraining@9aa93f8 compares with the mean of the global views, adds the terms
    unscaled and tests the rows of all views as one sample: ``centre_views=2 convex=false pool_views=true``.

    Args:
        projector: Two wide layers with batch norm, then a narrow linear one (16).
        weight: Of SIGReg, lambda, 0 to 1.
        slices: Random directions of a step, the same on all processes.
        knots: Points at which characteristic functions are compared, on [0, ``last_knot``].
        centre_views: Views, the first ones, whose mean the others are drawn to; None: all.
        convex: The agreement counts ``1 - weight``, otherwise 1.
        pool_views: SIGReg takes all views for one sample, otherwise it is the mean over the views'.
    """

    views_allowed = (None, None)
    compares = "batch"
    t: Tensor
    normal: Tensor
    quadrature: Tensor

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        weight: float = 0.02,
        slices: Size = 256,
        knots: int = 17,
        last_knot: Positive = 3.0,
        centre_views: Size | None = None,
        convex: bool = True,
        pool_views: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        if not 0 <= weight <= 1:
            raise ValueError(f"method.weight={weight:g}: SIGReg's share of the loss wants 0 to 1")
        self.projector = projector(backbone.out_features)
        for name, values in zip(("t", "normal", "quadrature"), normal_knots(knots, last_knot), strict=True):
            self.register_buffer(name, values, persistent=False)
        self.weight = weight
        self.slices = slices
        self.centre_views = centre_views
        self.agreement_weight = 1 - weight if convex else 1.0
        self.pool_views = pool_views

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        centre, count = settings.get("centre_views"), sum(view_counts(views))
        if centre is None or centre <= count:
            return None
        return (
            f"method.centre_views={centre}: the centre is the mean of so many views, and augmentation.views gives "
            f"{count}; wanted 1 to {count}, or null for all"
        )

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = concat(self.backbone, batch.views)                                       # V x [B, F]
        z = torch.stack(concat(self.projector, h))                                   # [V, B, D]
        slices = batch.rng.shared("slices").normal("directions", z.shape[-1], self.slices)  # [D, S]
        sigreg = self.sigreg(z.flatten(0, 1) if self.pool_views else z, slices)
        invariance = agreement(z, self.centre_views)
        loss = self.weight * sigreg + self.agreement_weight * invariance
        return {"loss": loss, "features": h[0], "sigreg": sigreg, "invariance": invariance}

    def sigreg(self, z: Tensor, slices: Tensor) -> Tensor:
        """Mean over directions (and views) of the statistic of all processes' rows ``[..., B, D]``."""
        means = mean_over_ranks(shadows(z, slices, self.t))                          # [2, ..., S, T]
        return epps_pulley(means, self.normal, self.quadrature, z.shape[-2] * world_size()).mean()
