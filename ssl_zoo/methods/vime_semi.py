"""VIME's second half: a classifier on a frozen encoder, which says the same of corrupted copies of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.losses.tables import consistency_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Size


class VIMESemi(Method):
    """Semi-supervised half of VIME, as ``vime_semi.py`` of jsyoon0823/VIME@996c58c; the paper is that of :class:`VIME`.

    Cross-entropy of the labelled rows, plus ``beta`` times the variance of the logits over corrupted copies of the
    others. The first view is the row, all others are corrupted.

    Args:
        hidden: Width of the classifier's two hidden layers; 100 in the code.
        beta: Weight of the variance.
        frozen: The encoder stays as it was pre-trained (``backbone.weights``), as in the code.
    """

    modality = "table"
    needs_labels = True
    views_required = (3, 0)
    views_allowed = (None, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        hidden: Size = 100,
        beta: NonNegative = 1.0,
        frozen: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer)
        if data_info.classes is None:
            raise ValueError("method=vime_semi needs some labels and the data has none; choose a labelled table")
        self.classifier = MLP(backbone.out_features, [hidden, hidden], data_info.classes, norm="none", last_bias=True)
        self.beta, self.frozen = beta, frozen
        if frozen:
            backbone.requires_grad_(False)

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        weights = (settings.get("backbone") or {}).get("weights")
        if weights is not None or not settings.get("frozen"):
            return None
        return (
            "backbone.weights=null: the encoder of VIME's second half stays as it is, which wants a trained one: "
            "backbone.weights=RUN of method=vime; or train it with method.frozen=false"
        )

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        with torch.set_grad_enabled(not self.frozen):
            h = [self.backbone(view) for view in batch.views]                        # 1 + K times [B, F]
        labelled = batch.label != -1
        loss = mean_of_chosen(cross_entropy_rows(self.classifier(h[0]), batch.label), labelled)
        copies = torch.stack([self.classifier(x) for x in h[1:]])                    # [K, B, C]
        variance = mean_of_chosen(consistency_rows(copies), ~labelled)
        return {"loss": loss + self.beta * variance, "features": h[0], "labelled": loss, "variance": variance}
