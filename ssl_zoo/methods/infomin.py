"""InfoMin: views that share as little as the task allows, a branch on shuffled tiles, and a queue of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.jigsaw_head import JigsawHead
from ssl_zoo.modules.queue import Queue
from ssl_zoo.modules.tilings import count_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size


class InfoMin(Method):
    """InfoMin Aug., Tian et al. 2020, https://arxiv.org/abs/2005.10243 (Sec. 4), as HobbitLong/PyContrast@84f94ea.

    The embedding of a crop and that of the tiles of another crop both have to find the key of a third one. As in the
    authors' code the key network moves after the optimizer step and keys are queued in the shuffled order. Their search
    for views by a generator (Sec. 4.2) is not in their code; ``ssl_zoo.benchmarks.infomin_curve`` shows the principle.

    Args:
        projector: Two layers without batch norm; a second one of its kind embeds tiles.
        tiles: Tiles of a view (9 for a 3 x 3 grid), each in the batch as an image of its own.
        temperature: > 0.
        momentum: Of the key network, in [0, 1].
        queue_size: Keys held; a multiple of the rows that a micro-batch over all devices brings.
        jigsaw: Weight of the tiles' loss, in [0, 1]; the crop's has the rest.
    """

    tensor_views = True
    views_required = (2, 1)
    views_allowed = (2, 1)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        tiles: Size = 9,
        temperature: Positive = 0.15,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
        jigsaw: Share = 0.5,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.jigsaw_projector = JigsawHead(projector(backbone.out_features), tiles)
        self.teacher = EMA(self.student)
        self.queue = Queue(queue_size, self.projector.out_features, rows=data_info.batch_size)
        self.temperature = temperature
        self.momentum = momentum
        self.jigsaw = jigsaw

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        (view,) = (view for view in views if view.get("kind") == "local")
        return count_problem(settings["tiles"], view, "the local view")

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view, tiles = batch.views                                    # tiles: [B, P, C, s, s]
        h = self.backbone(query_view)                                                # [B, F]
        q = F.normalize(self.projector(h), dim=1)                                    # [B, D]
        draw = batch.rng.shared("shuffle")
        k = F.normalize(shuffled(self.teacher, key_view, draw), dim=1)               # [B, D], no grad
        order = batch.rng.sample("tiles").permutation(tiles.shape[1])                # [B, P]
        t = tiled(self.backbone, tiles)                                              # [B, P, F]
        q_tiles = F.normalize(self.jigsaw_projector(t, order), dim=1)                # [B, D]
        crop = info_nce(q, k, self.queue.keys, self.temperature)
        jigsaw = info_nce(q_tiles, k, self.queue.keys, self.temperature)
        keys = gather(k)                                                             # [W * B, D]
        self.queue.push(keys[draw.permutation(len(keys)).to(keys.device)])
        loss = (1 - self.jigsaw) * crop + self.jigsaw * jigsaw
        return {"loss": loss, "features": h, "loss_crop": crop, "loss_jigsaw": jigsaw}

    def after_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))
