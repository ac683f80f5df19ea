"""MiCE: a mixture of contrastive experts, one for each cluster, that learns to cluster without a separate k-means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.mixture import mixture_of_experts, simplex
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.experts import ExpertCentres, Experts
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size
from ssl_zoo.shards import assign


class MiCE(Method):
    """MiCE, Tsai, Li & Zhu 2021, https://openreview.net/forum?id=gV3wdEOGy_V (eq. 8, 11 and 13).

    Three views of a sample: the student's experts, the teacher's experts, the gating function. The prototypes of the
    experts learn by gradient within an epoch and are replaced at its end by the normalised sums of the teacher's
    embeddings of the samples that each expert took (``train_MiCE.py``); an expert that took none gets zeros. They start
    at random directions, where the authors' start is memory that nobody wrote. The authors cluster training and test
    set together.

    Args:
        projector: Head of each expert and of the gate; linear in the authors' code.
        experts: Clusters, K; None: the number of classes that the data names. No label is read.
        temperature: Of experts and gate, > 0.
        momentum: Of the teacher, in [0, 1]; updated after the optimizer's step.
        queue_size: Past embeddings held, of all experts; a multiple of the micro-batch over all devices.
    """

    tensor_views = True
    views_required = (3, 0)
    views_allowed = (3, 0)
    gates: Tensor

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        experts: Size | None = None,
        temperature: Positive = 1.0,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 16384,
    ) -> None:
        super().__init__(backbone, optimizer)
        count = experts or data_info.classes
        if count is None:
            raise ValueError("method.experts is null and the data names no classes; give the number of clusters wanted")
        self.projector = Experts(projector, backbone.out_features, count)
        self.gate = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        dim = self.gate.out_features
        self.register_buffer("gates", simplex(count, dim).float())
        self.prototypes = nn.Parameter(nn.functional.normalize(torch.randn(count, dim), dim=1))
        self.centres = ExpertCentres(count, dim)
        self.queue = Queue(queue_size, count * dim, rows=data_info.batch_size)
        self.queue.keys.mul_(count**0.5)  # each expert's part about as long as a real embedding, as the authors' start
        self.temperature = temperature
        self.momentum = momentum

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                                    # [B, F]
        f = self.projector(h)                                                                # [B, K, D]
        v = shuffled(self.teacher, batch.views[1], batch.rng.shared("shuffle"))              # [B, K, D], no grad
        g = nn.functional.normalize(self.gate(self.backbone(batch.views[2])), dim=1)         # [B, D]
        queue = self.queue.keys.unflatten(1, f.shape[1:])                                    # [Q, K, D]
        mixture = mixture_of_experts(f, v, g, self.prototypes, self.gates, queue, self.temperature)
        v = gather(v)                                                                        # [W * B, K, D]
        self.queue.push(v.flatten(1))
        self.centres.add(v, gather(mixture.posterior.detach()).argmax(1))
        return {"loss": mixture.loss, "features": h}

    def assign_clusters(self, view: Tensor) -> Tensor:
        """``[B]``: the expert with the largest posterior, from one view in every role (``protocol=assignment``)."""
        h = self.backbone(view)                                                              # [B, F]
        g = nn.functional.normalize(self.gate(h), dim=1)                                     # [B, D]
        f, v = self.projector(h), self.teacher(view)                                         # [B, K, D]
        queue = self.queue.keys.unflatten(1, f.shape[1:])                                    # [Q, K, D]
        mixture = mixture_of_experts(f, v, g, self.prototypes, self.gates, queue, self.temperature)
        return mixture.posterior.argmax(1)

    def after_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def on_train_epoch_end(self) -> None:
        self.replace_prototypes()

    def on_train_epoch_start(self) -> None:
        self.replace_prototypes()  # where the epoch before was cut off after its last step

    @torch.no_grad()
    def replace_prototypes(self) -> None:
        """The analytic M-step (eq. 13), once the epoch's samples are summed."""
        if self.centres.added:
            assign(self.prototypes, self.centres.take())
