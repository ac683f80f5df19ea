"""DeepCluster-v2: spherical k-means of the embeddings of the last epoch; its centroids are the prototypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, sum_over_ranks, world_size
from ssl_zoo.errors import require
from ssl_zoo.losses.clustering import cluster_prediction
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.epoch_memory import EpochMemory
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.kmeans import check_clusters, spherical_kmeans
from ssl_zoo.modules.memory_bank import BankType
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size

SCOPES, NONE = ("global", "rank"), -100  # NONE: label of a sample that the last epoch did not see


class DeepClusterV2(Method):
    """DeepCluster-v2, Caron et al. 2020, https://arxiv.org/abs/2006.09882 (App. C), as main_deepclusterv2.py.

    Each clustering takes one bank, the first global views' embeddings or the second's, in turn. Samples that the last
    epoch left out have no label in this one. The prototypes are the centroids; the recipe keeps them from learning.

    The authors' processes add up the sums of their parts of the memory: one clustering, as here, but for its start from
    rows of the first. They divide the loss by their own labelled samples, as ``scope: rank`` does. The first banks hold
    evaluation views in eval mode, theirs crops in training mode.

    Args:
        projector: Two layers with batch norm.
        clusters: Numbers of prototypes, one for each clustering.
        temperature: > 0.
        iterations: Of k-means.
        banks: Global views whose embeddings are remembered (``crops_for_assign``).
        bank_dtype: float32, float16 or bfloat16.
        scope: Over whose labelled samples the loss is a mean: ``global`` or ``rank``.
        views_together: Whether batch norm sees all views at once; None: it does.
    """

    views_allowed = (None, None)
    rows_of_samples = True
    assignments: Tensor  # [H, N]

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        clusters: Sequence[Size] = (3000, 3000, 3000),
        temperature: Positive = 0.1,
        iterations: Size = 10,
        banks: Size = 2,
        bank_dtype: BankType = "float32",
        scope: Literal["global", "rank"] = "global",
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        samples, rows = data_info.samples, data_info.batch_size
        require("method.scope", scope, SCOPES)
        check_clusters(clusters, samples // rows * rows, "the samples of an epoch")
        self.projector = projector(backbone.out_features)
        dim = self.projector.out_features
        self.prototypes: Any = nn.ModuleList(Prototypes(dim, count) for count in clusters)
        self.memory = EpochMemory(samples, dim, banks, bank_dtype)
        self.banks, self.passes = banks, passing(views_together, concat)
        start = torch.stack([torch.arange(samples) % count for count in clusters])  # before any clustering: in turn
        self.register_buffer("assignments", start)
        self.temperature, self.iterations, self.scope = temperature, iterations, scope
        self.uniform_loss = sum(map(math.log, clusters)) / len(clusters)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        parts = self.passes(self.backbone, batch.views)                              # V x [B, F]
        z = F.normalize(torch.cat(self.passes(self.projector, parts)), dim=1)        # [V * B, D]
        s = [prototypes(z) for prototypes in self.prototypes]                        # H x [V * B, K]
        targets = self.assignments[:, batch.index]                                   # [H, B]
        loss = cluster_prediction(s, targets, self.labelled(targets, z.dtype), self.temperature)
        remembered = z.detach().chunk(len(parts))[: self.banks]                      # 2 x [B, D]
        self.memory.update(gather(batch.index), [gather(view) for view in remembered])
        return {"loss": loss, "features": parts[0]}

    def labelled(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """``[H]`` samples with a label; of all processes, their mean."""
        count = (targets >= 0).sum(1).to(dtype)
        if self.scope == "rank":
            return count.clamp_min(1)
        return sum_over_ranks(count).clamp_min(1) / world_size()

    def on_train_epoch_start(self) -> None:
        epoch = self.trainer.current_epoch
        if epoch == 0:
            self.memory.fill(self.extract(self.student))
        self.cluster(Draw(stream_key(self.seed, "clusters", epoch), None))

    @torch.no_grad()
    def cluster(self, draw: Draw) -> None:
        """Cluster what the last epoch saw (``cluster_memory``)."""
        index = self.memory.seen.nonzero().flatten()                                 # [M]
        self.assignments.fill_(NONE)
        for h, prototypes in enumerate(self.prototypes):
            if len(index) < prototypes.out_features:
                raise ValueError(f"method.clusters: {prototypes.out_features} of the {len(index)} samples of an epoch")
            z = self.memory.rows(h, index)                                           # [M, D]
            start = z[draw.permutation(len(z), h)[: prototypes.out_features].to(z.device)]
            centroids, self.assignments[h, index] = spherical_kmeans(z, start, self.iterations)
            prototypes.replace(centroids)
        self.memory.forget()
