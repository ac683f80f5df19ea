"""ReSSL: two views agree on how similar the sample is to many others, instead of on being one sample."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.relation import relational_cross_entropy
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class ReSSL(Method):
    """ReSSL, Zheng et al. 2021, https://arxiv.org/abs/2107.09282 (eq. 3-5), as network/ressl.py of mingkai-zheng/ReSSL.

    View 0 is the student's, strongly augmented; view 1 the teacher's, weakly. The teacher moves before its forward and
    sees its batch shuffled, as MoCo's. The authors' variant with five crops is not here.

    Args:
        projector: Two layers without batch norm.
        student_temperature: > 0.
        teacher_temperature: > 0, smaller than the student's, so that the targets are sharper.
        momentum: Of the teacher, in [0, 1].
        queue_size: Earlier weak views; a multiple of the rows of a micro-batch over all devices.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.04,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 131072,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, self.projector.out_features, rows=data_info.batch_size)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum

    def before_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.projector), value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        strong_view, weak_view = batch.views
        h = self.backbone(strong_view)                                               # [B, F]
        q = F.normalize(self.projector(h), dim=1)                                    # [B, D]
        k = shuffled(self.teacher, weak_view, batch.rng.shared("shuffle"))
        k = F.normalize(k, dim=1)                                                    # [B, D], no grad
        temperatures = self.student_temperature, self.teacher_temperature
        loss = relational_cross_entropy(q, k, self.queue.keys, *temperatures)
        self.queue.push(gather(k))           # staged: written after this batch's backward
        return {"loss": loss, "features": h}
