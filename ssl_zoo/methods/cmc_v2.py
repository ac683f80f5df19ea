"""CMC v2: a query of one half of the channels looks for the key of the other half, beside a queue of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.towers import Towers
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.methods.cmc import Graph, Projectors, directions
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class CMCv2(Method):
    """CMCv2 of HobbitLong/PyContrast@84f94ea: CMC with a moving average of the towers and a queue of keys per view.

    Queries of one crop are contrasted with keys of the *other* view of another crop. The average is taken after the
    optimizer step, and keys are queued in the shuffled order, both as in the authors' code.

    Args:
        channels, graph: As in :class:`ssl_zoo.methods.cmc.CMC`.
        projector: One for each view; two layers without batch norm in the authors' code.
        temperature: > 0.
        momentum: Of the key towers, in [0, 1].
        queue_size: Keys held for each view.
    """

    tensor_views = True
    views_required = (2, 0)
    backbone: Towers

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        channels: Sequence[Sequence[int]],
        projector: Head,
        graph: Graph = "full",
        temperature: Positive = 0.2,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
    ) -> None:
        super().__init__(Towers(backbone, channels), optimizer)
        self.projectors = Projectors(projector, self.backbone)
        self.directions = directions(len(channels), graph)
        self.teacher = EMA(nn.Sequential(self.backbone, self.projectors))
        dim, rows = self.projectors.out_features, data_info.batch_size
        self.queues = nn.ModuleList(Queue(queue_size, dim, rows) for _ in channels)
        self.temperature = temperature
        self.momentum = momentum

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        h = self.backbone(query_view)                                                # [B, V * F]
        q = self.projectors(h)                                                       # [B, V, D]
        draw = batch.rng.shared("shuffle")
        k = shuffled(self.teacher, key_view, draw)                                   # [B, V, D], no grad
        queued = [cast(Queue, queue).keys for queue in self.queues]                  # V x [K, D]
        terms = {
            f"view{i}_to_view{j}": info_nce(q[:, i], k[:, j], queued[j], self.temperature) for i, j in self.directions
        }
        keys = gather(k)                                                             # [W * B, V, D]
        keys = keys[draw.permutation(len(keys)).to(keys.device)]
        for i, queue in enumerate(self.queues):
            cast(Queue, queue).push(keys[:, i])
        return {"loss": torch.stack(list(terms.values())).sum(), "features": h, **terms}

    def after_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.projectors), value(self.momentum, self.progress))
