"""KCL: MoCo with labels, and the same number of positives for every class, so that rare ones are not drowned."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.key_sets import k_positive
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.label_queue import LabelQueue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size
from ssl_zoo.sharding import gathered


class KCL(Method):
    """k-positive contrastive learning, Kang et al. 2021, https://openreview.net/forum?id=OqtLIabPTit (Sec. 4).

    As moco/kcl_builder.py and main_kcl.py of bingykang/BalFeat@ba60412, except that the k positives are drawn at
    random, as in the paper (the code takes what ``topk`` of zeros and ones gives, which depends on the device). Empty
    slots of the queue are never positives but are negatives. The code's ``SumCrossEntropyLoss`` cannot be
    differentiated as published and is left out.

    Args:
        projector: Linear, as MoCo v1's.
        temperature: > 0.
        momentum: Of the key encoder, in [0, 1]; the update precedes the key forward.
        queue_size: Keys held; a multiple of the rows of a micro-batch over all devices.
        positives: k, keys of the query's class drawn from the queue besides its own key; null: all of them.
        unused: What keys of the query's class are that were not drawn: ``negatives`` (the code's v1), or ``zero``: of
            similarity 0 (its v2, which so keeps a constant 1 for each in the denominator).
        fill_queue: Fill the queue before the first step, without updates, as the authors do.
    """

    tensor_views = True
    needs_labels = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        temperature: Positive = 0.07,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
        positives: Size | None = 6,
        unused: Literal["negatives", "zero"] = "negatives",
        fill_queue: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer)
        if positives is not None and not 0 <= positives <= queue_size:
            raise ValueError(f"method.positives={positives}: wanted null, or 0 to method.queue_size={queue_size}")
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        self.queue = LabelQueue(queue_size, self.projector.out_features, rows=data_info.batch_size)
        self.temperature = temperature
        self.momentum = momentum
        self.positives = positives
        self.unused = unused
        self.fill_queue = fill_queue

    @torch.no_grad()
    def on_train_start(self) -> None:
        super().on_train_start()
        if not self.fill_queue or self.queue.pushed:
            return  # a resumed run has its queue
        data, strategy = self.trainer.datamodule, self.trainer.strategy  # type: ignore[attr-defined]
        # Epoch -1, as the authors number it: the order and the views of no epoch of the training.
        with gathered(self):
            for raw in data.train_dataloader().peek(-1, self.queue.size // self.data_info.batch_size):
                batch = strategy.batch_to_device(raw)
                self.push(self.keys(batch), batch)
                self.queue.commit()

    def before_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, F]
        q = nn.functional.normalize(self.projector(h), dim=1)                        # [B, D]
        k = self.keys(batch)                                                         # [B, D], no grad
        same, drawn = self.choose(batch)                                             # 2 x [B, K]
        zeroed = same & ~drawn if self.unused == "zero" else None
        loss = k_positive(q, k, self.queue.keys, drawn, self.temperature, zeroed)
        self.push(k, batch)                  # staged: a key must not be a negative of its own query
        return {"loss": loss, "features": h}

    def keys(self, batch: Batch) -> Tensor:
        k = shuffled(self.teacher, batch.views[1], batch.rng.shared("shuffle1"))
        return nn.functional.normalize(k, dim=1)

    def choose(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which keys of the queue have the label of each row, and which of those were drawn: both ``[B, K]``."""
        assert batch.label is not None  # needs_labels
        label = batch.label[:, None]
        same = (self.queue.labels == label) & (label >= 0)                           # [B, K]
        if self.positives is None:
            return same, same
        rank = batch.rng.sample("positives").uniform("rank", self.queue.size)        # [B, K]
        best = rank.masked_fill(~same, -1.0).topk(self.positives, dim=1).indices     # [B, k]
        return same, torch.zeros_like(same).scatter(1, best, True) & same

    def push(self, k: Tensor, batch: Batch) -> None:
        assert batch.label is not None
        self.queue.push(gather(k), gather(batch.label))
