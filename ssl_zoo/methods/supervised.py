"""Supervised: cross-entropy on labels, the baseline of every table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Rate


class Supervised(Method):
    """Softmax cross-entropy (He et al. 2015, https://arxiv.org/abs/1512.03385, as the baseline of the tables).

    Args:
        label_smoothing: In [0, 1).
    """

    views_required = (1, 0)
    views_allowed = (None, 0)
    needs_labels = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        label_smoothing: Rate = 0.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        if data_info.classes is None:
            raise ValueError("method=supervised needs labels and the data has none; choose a labelled data set")
        self.classifier = nn.Linear(backbone.out_features, data_info.classes)
        self.label_smoothing = label_smoothing

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        h = [self.backbone(view) for view in batch.views]                            # V x [B, F]
        losses = [cross_entropy_rows(self.classifier(x), batch.label, self.label_smoothing) for x in h]  # V x [B]
        loss = torch.stack(losses).mean(0)                                           # [B], 0 without a label
        return {"loss": mean_of_chosen(loss, batch.label != -1), "features": h[0]}
