"""MoCo: a queue of keys from a slowly moving encoder (v1 and v2 differ in head, temperature, views, schedule)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA, TeacherMoves
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class MoCo(TeacherMoves, Method):
    """MoCo, He et al. 2019, https://arxiv.org/abs/1911.05722 (algorithm 1); v2 https://arxiv.org/abs/2003.04297.

    Args:
        projector: Linear in v1, two layers without batch norm in v2.
        temperature: > 0; 0.07 in v1, 0.2 in v2.
        momentum: Of the key encoder, in [0, 1]; the update precedes the key forward, as in the authors' code.
        queue_size: Keys held; a multiple of the keys that a micro-batch over all devices brings.
        symmetric: Each view is query and key in turn and both losses are added (the authors' CIFAR-10 notebook).
        own_queues: The keys of each view have a queue of their own, and the two losses are averaged (MoCo v2+ of
            solo-learn, ``solo/methods/mocov2plus.py``); needs ``symmetric``.
        moves_after_step: Move the teacher right after the optimizer's step (solo-learn); None: before its forward.
        evaluate_head: Evaluate the query encoder with its head, as that notebook does; None: the encoder.
    """

    tensor_views = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        temperature: Positive = 0.07,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
        symmetric: bool = False,
        own_queues: bool | None = None,
        moves_after_step: bool | None = None,
        evaluate_head: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        if own_queues and not symmetric:
            raise ValueError("method.own_queues=true is for keys of both views; set method.symmetric=true too")
        dim, rows = self.projector.out_features, data_info.batch_size * (1 + (symmetric and not own_queues))
        self.queue = Queue(queue_size, dim, rows)
        self.first_queue = Queue(queue_size, dim, rows) if own_queues else None  # of view 0; the other is of view 1
        self.temperature = temperature
        self.momentum = momentum
        self.symmetric = symmetric
        self.moves_after_step = bool(moves_after_step)
        self.evaluate_head = bool(evaluate_head)

    def move_teacher(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        turns = [(0, 1), (1, 0)] if self.symmetric else [(0, 1)]
        losses, keys, features = [], [], []
        for query, key in turns:
            h = self.backbone(batch.views[query])                                     # [B, F]
            z = self.projector(h)                                                     # [B, D]
            q = nn.functional.normalize(z, dim=1)                                     # [B, D]
            draw = batch.rng.shared(f"shuffle{key}")
            k = nn.functional.normalize(shuffled(self.teacher, batch.views[key], draw), dim=1)  # [B, D], no grad
            queue = self.first_queue if self.first_queue is not None and key == 0 else self.queue
            losses.append(info_nce(q, k, queue.keys, self.temperature))
            keys.append(gather(k))                                                    # [W * B, D]
            features.append(z if self.evaluate_head else h)
        self.remember(keys)
        loss = sum(losses[1:], losses[0])
        return {"loss": loss if self.first_queue is None else loss / 2, "features": features[0]}

    def remember(self, keys: list[Tensor]) -> None:
        """Push the keys of view 1, and of view 0. Staged: a key must not be a negative of its own query."""
        if self.first_queue is None:
            self.queue.push(torch.cat(keys[::-1]))  # keys of view 0 first, as in the authors' notebook
        else:
            self.queue.push(keys[0])
            self.first_queue.push(keys[1])

    def embed(self, view: Tensor) -> Tensor:
        h = self.encoder(view)
        return self.projector(h) if self.evaluate_head else h
