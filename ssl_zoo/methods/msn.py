"""MSN: a view with patches missing is assigned to the same prototypes as the whole view."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, mean_over_ranks, own_rows
from ssl_zoo.losses.masked_siamese import (
    assignment_cross_entropy,
    log_assignments,
    mean_entropy,
    missing_entropy,
    sharpened,
)
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA, TeacherEvaluated
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Linear, Schedule, value
from ssl_zoo.ranges import Count, NonNegative, Positive, Rate, Share, Size


class MSN(TeacherEvaluated, Method):
    """Masked siamese networks, Assran et al. 2022, https://arxiv.org/abs/2204.07141 (eq. 1-2, algorithm 1).

    As facebookresearch/msn@4388dc1: the first view is the teacher's, all others are anchors; patches are dropped from
    anchors of the first view's size alone, the same ones for the whole batch; prototypes are normalised in the loss.
    The recipe clips the gradients of backbone and projector only, their encoder.

    Args:
        projector: Three layers with batch norm and GELU; part of the teacher.
        prototypes: K.
        temperature: Of the assignments, > 0.
        target_temperature: To whose inverse power targets are raised, > 0.
        patch_drop: Share of the patches that is dropped, 0 to below 1; ``floor(N * (1 - patch_drop))`` stay.
        iterations: Of Sinkhorn-Knopp on the targets; 0: none.
        me_max: Weight of the entropy that the mean assignment lacks.
        entropy: Weight of the entropy of each assignment.
        label_smoothing: Share of every assignment that is spread over all prototypes.
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
        sum_prototype_gradients: Processes whose gradients of the prototypes the authors' code adds, not averages (16).
    """

    views_allowed = (None, None)
    needs_tokens = drops_tokens = True
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        prototypes: Size = 1024,
        temperature: Positive = 0.1,
        target_temperature: Positive | Schedule = 0.25,
        patch_drop: float = 0.15,
        iterations: Count = 3,
        me_max: NonNegative = 1.0,
        entropy: NonNegative = 0.0,
        label_smoothing: Rate = 0.0,
        momentum: Share | Schedule = Linear(0.996, 1.0, stretch=1.25),  # noqa: B008  (frozen dataclass)
        sum_prototype_gradients: Size | Literal[False] = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        if not 0 <= patch_drop < 1:
            raise ValueError(f"method.patch_drop={patch_drop:g}: the share of dropped patches wants 0 to below 1")
        self.projector = projector(backbone.out_features)
        self.prototypes = Prototypes(self.projector.out_features, prototypes)
        self.sum_prototype_gradients = sum_prototype_gradients
        if sum_prototype_gradients:
            self.prototypes.weight.register_hook(lambda gradient: gradient * sum_prototype_gradients)
        self.teacher = EMA(backbone)
        self.teacher_projector = EMA(self.projector)
        self.temperature, self.target_temperature = temperature, target_temperature
        self.patch_drop, self.iterations, self.momentum = patch_drop, iterations, momentum
        self.me_max, self.entropy, self.label_smoothing = me_max, entropy, label_smoothing
        self.uniform_loss = (1 + entropy) * math.log(prototypes)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        whole, *anchors = batch.views
        with torch.no_grad():
            tokens = self.encoder.forward_tokens(whole)
            h = tokens.features                                                      # [B, F]
            targets = self.targets(self.teacher_projector(h))                        # [B, K]
        patches = tokens.patches.shape[1]
        order = batch.rng.shared("patch_drop").permutation(patches)                  # [N]
        kept = order[: math.floor(patches * (1 - self.patch_drop))]

        def embed(view: Tensor) -> Tensor:
            keep = kept.expand(len(view), -1) if view.shape[1:] == whole.shape[1:] else None
            return self.projector(self.backbone.forward_tokens(view, keep).features)

        z = torch.cat(concat(embed, anchors))                                        # [V * B, D]
        log_p = self.assign(z)                                                       # [V * B, K]
        cross_entropy = assignment_cross_entropy(log_p, targets)
        me_max = missing_entropy(mean_over_ranks(log_p.exp().mean(0)))
        entropy = mean_entropy(log_p)
        loss = cross_entropy + self.me_max * me_max + self.entropy * entropy
        return {"loss": loss, "features": h, "cross_entropy": cross_entropy, "me_max": me_max, "entropy": entropy}

    def assign(self, z: Tensor) -> Tensor:
        return log_assignments(z, self.prototypes.weight, self.temperature, self.label_smoothing)

    def targets(self, z: Tensor) -> Tensor:
        """Sharpened, balanced assignments ``[B, K]`` of the teacher's embeddings ``[B, D]``."""
        log_p = gather(self.assign(z))                                               # [W * B, K]
        return own_rows(sharpened(log_p, value(self.target_temperature, self.progress), self.iterations))

    def after_step(self) -> None:
        momentum = value(self.momentum, self.progress)
        self.teacher.update(self.backbone, momentum)
        self.teacher_projector.update(self.projector, momentum)
