"""MoCo: a queue of keys from a slowly moving encoder (v1 and v2 differ in head, temperature, views, schedule)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class MoCo(Method):
    """MoCo, He et al. 2019, https://arxiv.org/abs/1911.05722 (algorithm 1); v2 https://arxiv.org/abs/2003.04297.

    Args:
        projector: Linear in v1, two layers without batch norm in v2.
        temperature: > 0; 0.07 in v1, 0.2 in v2.
        momentum: Of the key encoder, in [0, 1]; the update precedes the key forward, as in the authors' code.
        queue_size: Keys held; a multiple of the keys that a micro-batch over all devices brings.
        symmetric: Each view is query and key in turn and both losses are added (the authors' CIFAR-10 notebook).
    """

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
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(nn.Sequential(backbone, self.projector))
        self.queue = Queue(queue_size, self.projector.out_features, rows=data_info.batch_size * (1 + symmetric))
        self.temperature = temperature
        self.momentum = momentum
        self.symmetric = symmetric

    def before_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.projector), value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        turns = [(0, 1), (1, 0)] if self.symmetric else [(0, 1)]
        losses, keys, features = [], [], []
        for query, key in turns:
            h = self.backbone(batch.views[query])                                     # [B, F]
            q = nn.functional.normalize(self.projector(h), dim=1)                     # [B, D]
            draw = batch.rng.shared(f"shuffle{key}")
            k = nn.functional.normalize(shuffled(self.teacher, batch.views[key], draw), dim=1)  # [B, D], no grad
            losses.append(info_nce(q, k, self.queue.keys, self.temperature))
            keys.append(gather(k))                                                    # [W * B, D]
            features.append(h)
        # Staged: a key must not be a negative of its own query. Keys of view 0 first, as in the authors' notebook.
        self.queue.push(torch.cat(keys[::-1]))
        return {"loss": sum(losses[1:], losses[0]), "features": features[0]}
