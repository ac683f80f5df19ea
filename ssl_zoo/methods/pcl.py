"""PCL: MoCo's queue, and prototypes of several clusterings found anew at every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.losses.prototypical import proto_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.granularity import Granularity, check_clusters
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.kmeans import kmeans
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Count, NonNegative, Positive, Share, Size


class PCL(Method):
    """PCL, Li et al. 2020, https://arxiv.org/abs/2005.04966 (algorithm 1, eq. 11-13).

    ``InfoNCE + mean over granularities of ProtoNCE``, as ``main_pcl.py`` of salesforce/PCL. Its command lines use
    temperature 0.2 for v1 too. The authors' processes contrast with the prototypes of their own 32 rows; here those of
    the whole batch are, which ``scope: rank`` undoes.

    Args:
        projector: Linear in v1, two layers without batch norm in v2.
        temperature: Of InfoNCE, and mean of the prototypes' concentrations; > 0.
        momentum: Of the key encoder, in [0, 1]; the update precedes the key forward.
        queue_size: Keys held; as many as ``negatives`` in the authors' code.
        clusters: Numbers of prototypes, one for each granularity; at least ``negatives`` and a batch.
        negatives: Prototypes drawn against each batch.
        warmup_epochs: InfoNCE alone.
        iterations, redo, smoothing: The first two of k-means; alpha of the concentration.
        scope: Whose samples' prototypes are negatives besides those drawn: ``global`` or ``rank``.
    """

    tensor_views = True
    begins = ("warmup_epochs",)
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        temperature: Positive = 0.2,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 16384,
        clusters: Sequence[Size] = (25000, 50000, 100000),
        negatives: Size = 16384,
        warmup_epochs: Count = 20,
        iterations: Size = 20,
        redo: Size = 5,
        smoothing: NonNegative = 10.0,
        scope: Literal["global", "rank"] = "global",
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        dim = self.projector.out_features
        self.queue = Queue(queue_size, dim, rows=data_info.batch_size)
        check_clusters(clusters, negatives, data_info.batch_size, data_info.samples)
        self.granularities = nn.ModuleList(Granularity(data_info.samples, count, dim) for count in clusters)
        self.temperature = temperature
        self.momentum = momentum
        self.negatives = negatives
        self.warmup_epochs = warmup_epochs
        self.iterations, self.redo, self.smoothing = iterations, redo, smoothing
        self.scope = scope

    def on_train_epoch_start(self) -> None:
        if self.trainer.current_epoch >= self.warmup_epochs:
            keys = self.extract(self.teacher)
            self.cluster(nn.functional.normalize(keys, dim=1, out=keys))

    def cluster(self, keys: Tensor) -> None:
        """The E-step on unit keys ``[samples, D]`` of the whole training set."""
        for seed, level in enumerate(self.levels):
            found = kmeans(keys, len(level.prototypes), self.iterations, self.redo, seed, device=self.device)
            level.fill(found, self.temperature, self.smoothing)

    def before_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        h = self.backbone(query_view)                                                        # [B, F]
        q = nn.functional.normalize(self.projector(h), dim=1)                                # [B, D]
        k = shuffled(self.teacher, key_view, batch.rng.shared("shuffle"))
        k = nn.functional.normalize(k, dim=1)                                                # [B, D], no grad
        instance = info_nce(q, k, self.queue.keys, self.temperature)
        self.queue.push(gather(k))
        if not self.levels[0].filled:
            return {"loss": instance, "features": h}
        index = gather(batch.index) if self.scope == "global" else batch.index               # [N]
        losses = [self.prototype_loss(i, q, index, batch.rng.shared(f"negatives{i}")) for i in range(len(self.levels))]
        prototype = torch.stack(losses).mean()
        return {"loss": instance + prototype, "features": h, "instance": instance, "prototype": prototype}

    def prototype_loss(self, i: int, q: Tensor, index: Tensor, draw: Draw) -> Tensor:
        level = self.levels[i]
        positives = level.assignment[index]                                                  # [N]
        negatives = level.negatives(positives, self.negatives, draw)                         # [r]
        offset = rank() * len(q) if self.scope == "global" else 0
        return proto_nce(q, level.prototypes, level.concentration, positives, negatives, offset)

    @property
    def levels(self) -> list[Granularity]:
        return cast(Any, list(self.granularities))
