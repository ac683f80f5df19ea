"""SwAV: predict the cluster assignment of one crop from the others, assignments balanced online."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.losses.clustering import swapped_prediction
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.balance import balanced_with_queue
from ssl_zoo.modules.dino_head import WeightNormLinear
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Count, Positive, Size

ASSIGNED = 2  # views whose assignments are predicted: the two global ones (``crops_for_assign`` of main_swav.py)


class SwAV(Method):
    """SwAV, Caron et al. 2020, https://arxiv.org/abs/2006.09882 (eq. 2-5), order of steps as in ``main_swav.py``.

    Args:
        projector: Two layers with batch norm.
        prototypes: Clusters, K.
        temperature: Of the predictions, > 0.
        epsilon: Smoothness of the assignments, > 0.
        iterations: Of Sinkhorn-Knopp, at least 1.
        queue_size: Past embeddings that help to balance small batches, per assigned view; 0 for none.
        queue_start: Epoch from which the queue is filled.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        weight_norm: Divide the prototypes by their norms in every pass (solo-learn); None: before every step, in place.
        views_together: Whether batch norm sees all views at once; None: it does, as in the authors' code.
    """

    views_allowed = (None, None)
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        prototypes: Size = 3000,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        iterations: Size = 3,
        queue_size: Count = 0,
        queue_start: Count = 15,
        grad_cache: Size = 1,
        weight_norm: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        kind = WeightNormLinear if weight_norm else Prototypes
        self.prototypes = kind(self.projector.out_features, prototypes)
        rows, dim = data_info.batch_size, self.projector.out_features
        self.queues = nn.ModuleList(Queue(queue_size, dim, rows) for _ in range(ASSIGNED if queue_size else 0))
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.queue_start = queue_start
        self.begins = ("queue_start",) if queue_size else ()
        self.grad_cache = grad_cache
        self.passes = passing(views_together, concat)
        self.uniform_loss = math.log(prototypes)

    def before_step(self) -> None:
        if isinstance(self.prototypes, Prototypes):
            self.prototypes.normalize_()

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = self.passes(self.backbone, views)                                        # V x [B, F]
        z = self.passes(self.projector, h)                                           # V x [B, D]
        return h[0], *[nn.functional.normalize(x, dim=1) for x in z]                 # [B, F], V x [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, *z = in_chunks(self, self.encode, batch.views, self.grad_cache)           # [B, F], V x [B, D]
        s = self.prototypes(torch.cat(z)).chunk(len(z))                              # V x [B, K]
        q = [self.assign(s[i].detach(), z[i].detach(), i) for i in range(ASSIGNED)]  # 2 x [B, K]
        loss = swapped_prediction(s, q, self.temperature)
        return {"loss": loss, "features": h, "assignments": q[0]}

    def assign(self, scores: Tensor, z: Tensor, view: int) -> Tensor:
        """Balanced assignments ``[B, K]`` of the local rows of an assigned view."""
        begun = self.queues and self.progress.epoch >= self.queue_start
        queue = cast(Queue, self.queues[view]) if begun else None
        return balanced_with_queue(scores, z, self.prototypes, queue, self.epsilon, self.iterations)
