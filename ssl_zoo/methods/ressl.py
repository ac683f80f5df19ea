"""ReSSL: two views agree on how similar the sample is to many others, instead of on being one sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.relation import relational_cross_entropy
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA, TeacherMoves
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class ReSSL(TeacherMoves, Method):
    """ReSSL, Zheng et al. 2021, https://arxiv.org/abs/2107.09282 (eq. 3-5), as network/ressl.py of mingkai-zheng/ReSSL.

    The last view is the teacher's, weakly augmented; those before it are the student's, strongly. All of them are
    compared with it, and the loss is the mean over them (``network/ressl_multi.py``: five, of 224 to 96 pixels). The
    teacher moves before its forward and sees its batch shuffled, as MoCo's.

    Args:
        projector: Two layers without batch norm.
        student_temperature: > 0.
        teacher_temperature: > 0, smaller than the student's, so that the targets are sharper.
        momentum: Of the teacher, in [0, 1].
        queue_size: Earlier weak views; a multiple of the rows of a micro-batch over all devices.
        moves_after_step: Move the teacher right after the optimizer's step (solo-learn); None: before its forward.
    """

    tensor_views = True
    views_allowed = (None, 0)

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
        moves_after_step: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        self.queue = Queue(queue_size, self.projector.out_features, rows=data_info.batch_size)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.moves_after_step = bool(moves_after_step)

    def move_teacher(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        *strong_views, weak_view = batch.views
        h = per_view(self.backbone, strong_views)                                    # V x [B, F]
        q = F.normalize(torch.cat([self.projector(x) for x in h]), dim=1)            # [V * B, D]
        k = shuffled(self.teacher, weak_view, batch.rng.shared("shuffle"))
        k = F.normalize(k, dim=1)                                                    # [B, D], no grad
        temperatures = self.student_temperature, self.teacher_temperature
        loss = relational_cross_entropy(q, k.repeat(len(h), 1), self.queue.keys, *temperatures)
        self.queue.push(gather(k))           # staged: written after this batch's backward
        return {"loss": loss, "features": h[0]}
