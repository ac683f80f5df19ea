"""DINO: match the centred and sharpened outputs of a moving average of the network, small crops against large ones."""

from __future__ import annotations

import math

from torch import Tensor

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.self_distillation import centred_softmax, self_distillation
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.centre import Centre
from ssl_zoo.modules.ema import EMA, TAUGHT, TeacherEvaluated
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import Positive, Share


class DINO(TeacherEvaluated, Method):
    """DINO, Caron et al. 2021, https://arxiv.org/abs/2104.14294 (algorithm 1, eq. 2-5).

    As ``main_dino.py`` of facebookresearch/dino@7c446df: crops of one size pass the backbone together and all crops
    the head together, which only batch norm notices; the teacher stays in training mode, without stochastic depth; the
    loss is a mean over pairs of different crops; the centre used is that of the batches before. The recipe freezes the
    last layer in the first epoch, after gradients are clipped one tensor at a time.

    Args:
        projector: :class:`ssl_zoo.modules.dino_head.DINOHead`, K outputs.
        temperature: Of the student, > 0.
        teacher_temperature: > 0, below the student's; the authors raise it once an epoch.
        centring: Subtract the running mean of the teacher's outputs; without it one output wins for all images.
        centre_momentum: Of that mean, in [0, 1).
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
        views_together: Whether batch norm sees all crops of a size at once; None: it does.
        evaluate_student: Evaluate and export the student (solo-learn's numbers); None: the teacher.
    """

    views_allowed = (2, None)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.1,
        teacher_temperature: Positive | Schedule = 0.04,
        centring: bool = True,
        centre_momentum: Share = 0.9,
        momentum: Share | Schedule = Cosine(0.996, 1.0),  # noqa: B008  (frozen dataclass)
        views_together: bool | None = None,
        evaluate_student: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(backbone)
        self.teacher_projector = EMA(self.projector)
        self.centre = Centre(self.projector.out_features, centre_momentum)
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.centring = centring
        self.momentum = momentum
        self.passes = passing(views_together, concat)
        self.evaluate_student = bool(evaluate_student)
        self.uniform_loss = math.log(self.projector.out_features)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.passes(self.backbone, batch.views)                                  # V x [B, F]
        s = self.passes(self.projector, h)                                           # V x [B, K]
        y = self.passes(self.teacher, batch.views[:TAUGHT])                          # 2 x [B, F], no grad
        t = self.passes(self.teacher_projector, y)                                   # 2 x [B, K], no grad
        p = [self.target(x) for x in t]                                              # 2 x [B, K]
        loss = self_distillation(s, p, self.temperature)
        if self.centring:
            self.centre.update(*t)       # staged: this batch was centred by those before it
        return {"loss": loss, "features": (h if self.evaluate_student else y)[0], "assignments": p[0]}

    def target(self, scores: Tensor) -> Tensor:
        """``[B, K]`` scores of the teacher as probabilities."""
        return centred_softmax(scores, self.centre.value, value(self.teacher_temperature, self.progress))

    def after_step(self) -> None:
        momentum = value(self.momentum, self.progress)
        self.teacher.update(self.backbone, momentum)
        self.teacher_projector.update(self.projector, momentum)
