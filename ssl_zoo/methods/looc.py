"""LooC: one space that is invariant to every augmentation, and one more for each that keeps what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.key_sets import leave_one_out
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Positive, Share, Size
from ssl_zoo.signatures import view_counts


class Spaces(nn.ModuleList):
    """Heads side by side: ``[B, F]`` -> ``[B, S, D]``."""

    def forward(self, h: Tensor) -> Tensor:
        return torch.stack([head(h) for head in self], dim=1)


class LooC(Method):
    """LooC, Xiao et al. 2021, https://arxiv.org/abs/2008.05659 (Sec. 3, eq. 2) on MoCo v2.

    View 0 is the query. View 1 shares no draw with it; view ``1 + i`` shares those of augmentation ``i`` (``tie`` of
    ``augmentation.views``), so that space ``i`` must tell what that augmentation did. No code of the authors is public.

    Args:
        projector: Of each space, as MoCo v2's.
        spaces: One more than there are augmentations to keep; as many as there are key views.
        temperature: > 0.
        momentum: Of the key encoder, in [0, 1]; the update precedes the key forward, as in MoCo.
        queue_size: Keys held for each space; a multiple of the rows of a micro-batch over all devices.
        concatenate: Evaluate all spaces side by side (LooC++) instead of the backbone's features.
    """

    tensor_views = True
    views_required = (3, 0)
    views_allowed = (None, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        spaces: Size = 3,
        temperature: Positive = 0.2,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
        concatenate: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        if spaces < 2:
            raise ValueError(f"method.spaces={spaces}: wanted 2 or more, one for all augmentations and one for each")
        self.spaces = Spaces(projector(backbone.out_features) for _ in range(spaces))
        dim = cast(int, self.spaces[0].out_features)
        self.teacher = EMA(nn.Sequential(backbone, self.spaces))
        self.queues = nn.ModuleList(Queue(queue_size, dim, data_info.batch_size) for _ in range(spaces))
        self.temperature = temperature
        self.momentum = momentum
        self.concatenate = concatenate

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        spaces, keys = settings["spaces"], view_counts(views)[0] - 1
        if spaces == keys:
            return None
        return (
            f"method.spaces={spaces}: augmentation.views gives {keys} key views (all but the first), and every space "
            f"needs one; set method.spaces={keys}, or add or remove views"
        )

    def before_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.spaces), value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, *key_views = batch.views
        h = self.backbone(query_view)                                                # [B, F]
        z = self.spaces(h)                                                           # [B, S, D]
        q = nn.functional.normalize(z, dim=2).transpose(0, 1)                        # [S, B, D]
        k = [shuffled(self.teacher, view, batch.rng.shared(f"shuffle{i}")) for i, view in enumerate(key_views)]
        keys = nn.functional.normalize(torch.stack(k), dim=3).permute(2, 0, 1, 3)    # [S, S, B, D] by space and view
        queues = [cast(Queue, queue) for queue in self.queues]
        losses = leave_one_out(q, keys, [queue.keys for queue in queues], self.temperature)    # [S]
        for i, queue in enumerate(queues):
            queue.push(gather(keys[i, i].contiguous()))     # staged: a key must not be a negative of its own query
        return {"loss": losses.mean(), "features": z.flatten(1) if self.concatenate else h}

    def embed(self, view: Tensor) -> Tensor:
        h = self.backbone(view)
        return self.spaces(h).flatten(1) if self.concatenate else h
