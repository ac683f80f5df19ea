"""Contrastive pairs: embeddings of similar samples come together, those of others keep a distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import passing, per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import require
from ssl_zoo.losses.pairs import chopra, distances, first_negatives, hadsell, mean_of, online_hadsell
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.likeness import Likeness, Positives, rows_of, views_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size

FORMS = {"hadsell": hadsell, "online": online_hadsell, "chopra": chopra}
NEGATIVES = ("all", "balanced", "hardest")


class ContrastivePair(Method):
    """Siamese networks with the contrastive loss of Hadsell et al. 2006 (eq. 4) or of Chopra et al. 2005 (eq. 8).

    https://doi.org/10.1109/CVPR.2006.100 and https://doi.org/10.1109/CVPR.2005.202. All pairs of the rows of the global
    batch are looked at; the papers draw pairs beforehand, half of them similar, which ``negatives: balanced`` comes to.
    The losses and choices are those of adambielski/siamese-triplet@0c719f9; views pass one by one, as its
    ``SiameseNet`` sees them.

    Args:
        projector: To the embedding; 2 wide in adambielski's plots, linear here.
        form: ``hadsell``; ``online``: twice that, as ``OnlineContrastiveLoss``; ``chopra``: absolute differences.
        margin: Of ``hadsell`` and ``online``, > 0; of ``chopra`` Q, the largest distance there can be.
        positives: ``views`` of a sample, or samples of one ``label``.
        negatives: ``all`` pairs; ``balanced``: as many as similar ones, drawn; ``hardest``: as many, the nearest.
        instances: Samples of a class that follow one another in the order of an epoch; None: any order.
        unit: Embeddings at length 1, as ``EmbeddingNetL2``.
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
        form: Literal["hadsell", "online", "chopra"] = "hadsell",
        margin: Positive = 1.0,
        positives: Positives = "views",
        negatives: Literal["all", "balanced", "hardest"] = "balanced",
        instances: Size | None = None,
        unit: bool = False,
        evaluate_head: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.form", form, FORMS)
        require("method.negatives", negatives, NEGATIVES)
        self.projector = projector(backbone.out_features)
        self.likeness = Likeness(positives, instances, data_info)
        self.loss, self.order = FORMS[form], 1.0 if form == "chopra" else 2.0
        self.margin, self.negatives, self.unit = margin, negatives, unit
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
        distance = distances(z, z, self.order)                                       # [N, N]
        similar = number[:, None] == number                                          # [N, N]
        pairs = self.pairs(distance, similar, batch)                                 # [N, N] bool, each pair once
        loss = mean_of(self.loss(distance, similar, self.margin), pairs)
        return {"loss": loss, "features": h[0]}

    def pairs(self, distance: Tensor, similar: Tensor, batch: Batch) -> Tensor:
        """Which pairs count, ``[N, N]`` above the diagonal: the similar ones, and the chosen ones of the others."""
        every = torch.ones_like(similar).triu(1)
        if self.negatives == "all":
            return every
        drawn = self.negatives == "balanced"
        rank = batch.rng.shared("negatives").uniform("rank", *distance.shape) if drawn else distance.detach()
        return every & similar | first_negatives(rank.to(distance.device), similar, every)
