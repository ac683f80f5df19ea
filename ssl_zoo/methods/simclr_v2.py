"""SimCLR v2: SimCLR with a deeper head and, if wanted, a memory of keys from a slowly moving network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.key_sets import in_batch_info_nce
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Count, Positive, Share, Size


class SimCLRv2(SimCLR):
    """SimCLR v2, Chen et al. 2020, https://arxiv.org/abs/2006.10029: first of its three steps (Sec. 2).

    The loss is SimCLR's, the head has three layers, from the first of which ``protocol=finetune`` goes on; the third
    step is ``method=distill``. With ``queue_size`` the positive and all negatives come from a moving average of the
    network, the negatives are the batch's other keys and a queue (Sec. 2, "memory"; the authors' code has no memory:
    this is the paper's sentence with MoCo's order of things, the average moving before the step).

    Args:
        projector: Three layers with batch norm in the authors' code.
        temperature, sum_directions, grad_cache: As in :class:`ssl_zoo.methods.simclr.SimCLR`.
        queue_size: Keys held, a multiple of the two views' rows of a micro-batch over all devices; 0: no memory.
        momentum: Of the moving average, in [0, 1].
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        temperature: Positive = 0.1,
        sum_directions: bool = True,
        grad_cache: Size = 1,
        queue_size: Count = 0,
        momentum: Share | Schedule = 0.999,
    ) -> None:
        super().__init__(backbone, optimizer, projector, temperature, sum_directions, grad_cache)
        self.momentum = momentum
        self.queue: Queue | None = None
        if queue_size:
            self.teacher = EMA(self.student)
            self.queue = Queue(queue_size, self.projector.out_features, rows=2 * data_info.batch_size)
            self.compares = None

    def before_step(self) -> None:
        if self.queue is not None:
            self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.queue is None:
            return super().training_loss(batch)
        h, *q = in_chunks(self, self.encode, batch.views, self.grad_cache)           # [B, F], 2 x [B, D]
        keys = self.passes(self.teacher, batch.views)                                # 2 x [B, D], no grad
        keys = [gather(nn.functional.normalize(k, dim=1)) for k in keys]             # 2 x [W * B, D]
        offset = rank() * len(q[0])
        losses = [
            in_batch_info_nce(q[i], torch.cat([keys[1 - i], self.queue.keys]), offset, self.temperature)
            for i in (0, 1)
        ]
        self.queue.push(torch.cat(keys))  # staged: no key is a negative of its own sample
        loss = losses[0] + losses[1]
        return {"loss": loss if self.sum_directions else loss / 2, "features": h}
