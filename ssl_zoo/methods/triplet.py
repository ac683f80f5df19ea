"""Triplets: an anchor is nearer to a positive than to a negative, by a margin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import passing, per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import require
from ssl_zoo.losses.triplets import (
    Triplets,
    all_triplets,
    between,
    hardest,
    nearest_semihard,
    random_hard,
    semihard,
)
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.likeness import Likeness, Positives, rows_of, views_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size

Negatives = Literal["all", "hardest", "random_hard", "semihard", "nearest_semihard"]
NEGATIVES = ("all", "hardest", "random_hard", "semihard", "nearest_semihard")


class Triplet(Method):
    """Triplet loss, Schroff et al. 2015, https://arxiv.org/abs/1503.03832 (eq. 1-3), with negatives found on the way.

    Anchors, positives and negatives are rows of the global batch. The choices are the selectors of
    adambielski/siamese-triplet@0c719f9 (of two samples that are alike the earlier one is the anchor), and FaceNet's
    nearest semi-hard negative as TensorFlow has it (each of the two is). Views pass one by one, as its ``TripletNet``
    sees them.

    Args:
        projector: To the embedding; 2 wide in adambielski's plots, 128 in FaceNet, linear here.
        margin: > 0; 1 in adambielski's code, 0.2 in FaceNet.
        squared: Squared distances, as both; False: as ``torch.nn.TripletMarginLoss``.
        positives: ``views`` of a sample, or samples of one ``label``.
        negatives: ``all`` triplets; for each pair the ``hardest`` one, a ``random_hard`` or ``semihard`` one that costs
            something, or the ``nearest_semihard`` one.
        instances: Samples of a class that follow one another in the order of an epoch; None: any order.
        unit: Embeddings at length 1, as FaceNet.
        evaluate_head: Evaluate the embeddings, as the authors; None: the encoder.
        views_together: Whether batch norm sees all views at once; None: one by one.
    """

    views_required = (1, 0)
    views_allowed = (None, 0)
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        margin: Positive = 1.0,
        squared: bool = True,
        positives: Positives = "views",
        negatives: Negatives = "random_hard",
        instances: Size | None = None,
        unit: bool = False,
        evaluate_head: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.negatives", negatives, NEGATIVES)
        self.projector = projector(backbone.out_features)
        self.likeness = Likeness(positives, instances, data_info)
        self.margin, self.squared, self.negatives, self.unit = margin, squared, negatives, unit
        self.evaluate_head = bool(evaluate_head)
        self.passes = passing(views_together, per_view)

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        alone = settings["positives"] == "views"
        return views_problem("method.positives=views", "method.positives=label", views) if alone else None

    def on_fit_start(self) -> None:
        self.likeness.check(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_epoch_start(self) -> None:
        self.likeness.group(self.trainer.datamodule)  # type: ignore[attr-defined]

    def project(self, h: Tensor) -> Tensor:
        z = self.projector(h)
        return F.normalize(z, dim=1) if self.unit else z

    def embed(self, view: Any) -> Tensor:
        h = self.encoder(view)
        return self.project(h) if self.evaluate_head else h

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.passes(self.backbone, batch.views)                                  # V x [B, F]
        z = rows_of(self.passes(self.project, h))                                    # [N, D], N = V * W * B
        number = self.likeness.numbers(batch, len(h))                                # [N]
        distance = between(z, z, self.squared)                                       # [N, N]
        ordered = self.negatives == "nearest_semihard"
        found = Triplets.of(distance, number, self.margin, ordered)                  # [P, N]
        loss, count = self.choose(found, batch)
        return {"loss": loss, "features": h[0], "triplets": count.to(loss.dtype)}

    def choose(self, found: Triplets, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean of the chosen triplets, and how many there are."""
        if self.negatives == "all":
            return all_triplets(found)
        if self.negatives == "hardest":
            return hardest(found)
        if self.negatives == "nearest_semihard":
            return nearest_semihard(found, self.margin)
        rank = batch.rng.shared("negatives").uniform("rank", *found.value.shape).to(found.value.device)
        return random_hard(found, rank) if self.negatives == "random_hard" else semihard(found, rank, self.margin)
