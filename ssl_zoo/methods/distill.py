"""Distillation: a student that learns a fine-tuned teacher's classes on unlabelled samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.distillation import softened_cross_entropy
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive
from ssl_zoo.teachers import load_teacher


class Distill(Method):
    """Third step of SimCLR v2, Chen et al. 2020, https://arxiv.org/abs/2006.10029 (eq. 2 and 3).

    The student sees the teacher's softened classes for every sample; labels, where there are any, can be mixed in:
    ``(1 - labelled) * distillation + labelled * cross-entropy``. A student of the teacher's architecture is
    self-distillation. The teacher's weights are in the student's checkpoint.

    Args:
        teacher: ``{checkpoint: RUN}`` of a network with a classifier (``protocol=finetune``, ``method=supervised`` or
            this method), or ``{timm: NAME, pretrained: bool}``; see :func:`ssl_zoo.teachers.load_teacher`.
        temperature: > 0; 0.1 to 1 in the paper, 1 in the authors' code.
        labelled: Weight of the labelled samples' own cross-entropy, in [0, 1]; 1 - alpha of eq. 3.

    Raises:
        ConfigError: If the teacher knows no classes.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        teacher: Mapping[str, Any],
        temperature: Positive = 1.0,
        labelled: float = 0.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        if not 0 <= labelled <= 1:
            raise ValueError(f"method.labelled={labelled}: wanted the weight of the labels, 0 to 1")
        self.teacher = load_teacher(teacher, data_info)
        if self.teacher.classes is None:
            raise ConfigError(
                "method.teacher has no classifier to learn from; fine-tune it first (python evaluate.py "
                "protocol=finetune checkpoint=RUN) and give that run's folder"
            )
        self.classifier = nn.Linear(backbone.out_features, self.teacher.classes)
        self.temperature = temperature
        self.labelled = labelled

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, F]
        logits = self.classifier(h)                                                  # [B, C]
        _, wanted = self.teacher(batch.views[0])                                     # [B, C], no grad
        loss = distillation = softened_cross_entropy(logits, wanted, self.temperature)
        if self.labelled and batch.label is not None:
            losses = cross_entropy_rows(logits, batch.label)                         # [B], 0 without a label
            named = mean_of_chosen(losses, batch.label != -1)                        # of all processes
            loss = (1 - self.labelled) * distillation + self.labelled * named
        return {"loss": loss, "features": h, "distillation": distillation}
