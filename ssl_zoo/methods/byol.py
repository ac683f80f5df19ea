"""BYOL: predict the teacher's projection of the other view, without negatives."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.regression import cosine_regression
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import Share


class BYOL(Method):
    """BYOL, Grill et al. 2020, https://arxiv.org/abs/2006.07733 (eq. 1-4).

    Args:
        projector, predictor: 4096-256 with batch norm in the hidden layer; ``norm=layer`` or ``none`` and a backbone
            without batch norm are those of https://arxiv.org/abs/2010.10241. Without a predictor (None) it collapses.
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
        redraw_teacher: Start the teacher from random weights of its own, as the authors' code does. A student that
            starts from weights (``backbone.weights``) has a teacher equal to it all the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        predictor: Head | None,
        momentum: Share | Schedule = Cosine(0.996, 1.0),  # noqa: B008  (frozen dataclass)
        redraw_teacher: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = nn.Identity() if predictor is None else predictor(self.projector.out_features)
        same_width(self.projector, self.projector if predictor is None else self.predictor)
        teacher = self.student
        if redraw_teacher and not backbone.pretrained:
            teacher = nn.Sequential(backbone.redrawn(), projector(backbone.out_features))
        self.teacher = EMA(teacher)
        self.momentum = momentum

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # 2 x [B, F]
        z = [self.projector(x) for x in h]                                           # 2 x [B, D]
        p = [self.predictor(x) for x in z]                                           # 2 x [B, D]
        t = [self.teacher(view) for view in batch.views]                             # 2 x [B, D], no grad
        loss = cosine_regression(p[0], t[1]) + cosine_regression(p[1], t[0])
        return {"loss": loss, "features": h[0], "embeddings": z[0]}

    def after_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))
