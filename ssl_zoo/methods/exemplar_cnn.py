"""Exemplar-CNN: every image is a class of its own, whose samples are views of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import require
from ssl_zoo.losses.triplets import Triplets, between, nearest_semihard
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import dropout as dropped
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.likeness import Likeness, rows_of, views_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Rate

LOSSES = ("softmax", "triplet")
MANY = 50_000  # seeds above which the triplet form is the better choice: its cost does not grow with them


class ExemplarCNN(Method):
    """Exemplar-CNN, Dosovitskiy et al. 2014, https://arxiv.org/abs/1406.6909 (eq. 1-2), and its triplet form.

    ``softmax``: a classifier over all training images, as training_scripts/exp083.py of EricArazo/ExemplarCNN@dac9075
    (the paper's code is not public); ``data.subset`` chooses how many, 16,000 there. Views are made anew at every step,
    where the authors store about 100 of each image. ``triplet``: views of one image against those of the others with
    FaceNet's semi-hard negatives, as self_supervision/exemplar.py of google/revisiting-self-supervised@b530e3b, which
    brings each *dimension* to length 1 over the batch, not each row: ``unit_axis`` 0, and 1 for the usual way.

    Args:
        projector: Before the triplet loss; null: none, as before the softmax.
        loss: ``softmax`` or ``triplet``.
        margin: Of the triplets, > 0.
        unit_axis: Of the triplets: 0 or 1.
        dropout: Before the classifier; the paper's networks have their own.
        views_together: Whether batch norm sees all views at once; None: it does.

    Raises:
        ValueError: If a projector stands before the softmax, which is linear already.
    """

    views_required = (1, 0)
    views_allowed = (None, 0)
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head | None = None,
        loss: Literal["softmax", "triplet"] = "softmax",
        margin: Positive = 0.5,
        unit_axis: Literal[0, 1] = 0,
        dropout: Rate = 0.0,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.loss", loss, LOSSES)
        softmax = loss == "softmax"
        if softmax and projector is not None:
            raise ValueError("method.projector stands before triplets only; set it to null, or method.loss=triplet")
        self.projector = None if projector is None else projector(backbone.out_features)
        width = backbone.out_features
        self.top = nn.Linear(width, data_info.samples) if softmax else None
        self.likeness = Likeness("views", None, data_info)
        self.margin, self.unit_axis, self.dropout = margin, unit_axis, dropout
        self.passes = passing(views_together, concat)
        self.uniform_loss = math.log(data_info.samples) if softmax else None
        if softmax and data_info.samples > MANY:
            rank_zero_warn(_costs(data_info.samples, width))

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        compares = settings["loss"] == "triplet"
        return views_problem("method.loss=triplet", "method.loss=softmax", views) if compares else None

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.passes(self.backbone, batch.views)                                  # V x [B, F]
        if self.top is None:
            loss = self.compare(h if self.projector is None else self.passes(self.projector, h), batch)
            return {"loss": loss, "features": h[0]}
        draws = [batch.rng.sample(("dropout", v)) for v in range(len(h))]
        s = [self.classify(x, draw) for x, draw in zip(h, draws, strict=True)]       # V x [B, N]
        losses = [F.cross_entropy(x, batch.index) for x in s]
        return {"loss": sum(losses[1:], losses[0]) / len(losses), "features": h[0]}

    def classify(self, h: Tensor, draw: Draw) -> Tensor:
        assert self.top is not None
        return self.top(dropped(h, self.dropout, draw))

    def compare(self, z: list[Tensor], batch: Batch) -> Tensor:
        """Triplets of the views ``V x [B, D]`` of the global batch."""
        rows = F.normalize(rows_of(z), dim=self.unit_axis, eps=1e-6)                 # [V * W * B, D]
        distance = between(rows, rows, squared=True)                                 # [N, N]
        found = Triplets.of(distance, self.likeness.numbers(batch, len(z)), self.margin, ordered=True)
        return nearest_semihard(found, self.margin)[0]


def _costs(samples: int, width: int) -> str:
    return (
        f"method.loss=softmax has a class for each of {samples:,} images, {samples * width * 4 / 2**30:.1f} GiB of "
        f"weights and as many scores a view; data.subset={MANY // 2} takes fewer images, and method.loss=triplet costs "
        "the same for any number"
    )
