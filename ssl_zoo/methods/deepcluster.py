"""DeepCluster: learn to tell apart the clusters of one's own features, find new clusters, and begin again."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import broadcast_object, is_main
from ssl_zoo.errors import require
from ssl_zoo.losses.clustering import cluster_prediction
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import with_dropout
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.kmeans import check_clusters, kmeans
from ssl_zoo.modules.pca import pca_whiten
from ssl_zoo.modules.power_iteration import power_iteration_clusters
from ssl_zoo.modules.reassignment import Reassignment, shuffled_groups
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Rate, Size
from ssl_zoo.shards import assign

CLUSTERINGS = ("kmeans", "pic")
SAMPLINGS = ("uniform", "authors", None)


class DeepCluster(Method):
    """DeepCluster, Caron et al. 2018, https://arxiv.org/abs/1807.05520 (eq. 1-2), as main.py of its authors.

    The clusters are those of the features before the projector's last ReLU, of evaluation views in eval mode, whitened
    on their principal components. The layer that predicts them begins anew with each clustering; the recipe gives it
    plain SGD, as the authors do. The Sobel filter is an operation of the views, behind which there are two channels.

    The paper samples all clusters equally often; so does this by default. The authors' code means to, but reads the
    positions that it drew in a reordered data set: ``sampling: authors`` does the same.

    Args:
        projector: The authors' AlexNet has two layers here, without batch norm.
        clusters: Of k-means, and at most of power iteration clustering, whose smallest share the last label.
        pca: Components of the features that are clustered.
        iterations: Of k-means.
        clustering: ``kmeans``, or ``pic``: power iteration clustering of a graph, which finds their number.
        sampling: How often an epoch reads each cluster: ``uniform``, ``authors``, or None: as large as it is.
        reassign: Epochs between two clusterings.
        dropout: Before each layer of the projector.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        clusters: Size = 10000,
        pca: Size = 256,
        iterations: Size = 20,
        clustering: Literal["kmeans", "pic"] = "kmeans",
        sampling: Literal["uniform", "authors"] | None = "uniform",
        reassign: Size = 1,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.clustering", clustering, CLUSTERINGS)
        require("method.sampling", sampling, SAMPLINGS)
        if reassign < 1:
            raise ValueError(f"method.reassign={reassign}: wanted 1 epoch or more between two clusterings")
        check_clusters(clusters, data_info.samples, "the training samples")
        self.projector = projector(backbone.out_features)
        self.top = nn.Linear(self.projector.out_features, clusters)
        self.assigned = Reassignment(data_info.samples, clusters)
        self.pca, self.iterations = pca, iterations
        self.clustering, self.sampling, self.reassign = clustering, sampling, reassign
        self.dropout = dropout
        self.uniform_loss = math.log(clusters)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, F]
        z = with_dropout(self.projector, h, self.dropout, batch.rng)                 # [B, D]
        s = self.top(z.relu())                                                       # [B, K]
        target = self.assigned.labels[batch.index]                                   # [B]
        loss = cluster_prediction([s], target[None], s.new_full((1,), len(target)))
        agreement = {"nmi": self.assigned.agreement} if self.assigned.replaced > 1 else {}
        return {"loss": loss, "features": h, **agreement}

    def on_train_epoch_start(self) -> None:
        trainer: Any = self.trainer
        if trainer.current_epoch % self.reassign:
            return
        features = self.extract(self.student)        # [N, D]
        self.cluster(features, Draw(stream_key(self.seed, "clusters", trainer.current_epoch), None))
        for p in self.top.parameters():
            self.bound.optimizer.state.pop(p, None)
        if self.sampling is not None:
            labels = self.assigned.labels.cpu()
            trainer.datamodule.group(labels if self.sampling == "uniform" else shuffled_groups(labels), None)

    @torch.no_grad()
    def cluster(self, features: Tensor, draw: Draw) -> None:
        """New labels from the features ``[N, D]`` of the training set, and a new layer to predict them."""
        x = pca_whiten(features, self.pca, self.device)                              # [N, P]
        if self.clustering == "kmeans":
            seed = int(draw.integers("kmeans", 1 << 31))  # another one each time
            found = kmeans(x, self.top.out_features, self.iterations, seed=seed, device=self.device).assignment
        else:
            found = torch.from_numpy(broadcast_object(power_iteration_clusters(x) if is_main() else None))
        self.assigned.replace(found)
        assign(self.top.weight, 0.01 * draw.normal("top", *self.top.weight.shape))
        self.top.bias.zero_()
