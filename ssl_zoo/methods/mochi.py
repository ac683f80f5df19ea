"""MoCHi: MoCo v2 with harder negatives, mixed from the hardest ones in feature space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.losses.hard_mixing import hardest, mixed
from ssl_zoo.losses.key_sets import info_nce_with
from ssl_zoo.methods.moco import MoCo
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule
from ssl_zoo.ranges import Count, Positive, Share, Size


class MoCHi(MoCo):
    """MoCHi, Kalantidis et al. 2020, https://arxiv.org/abs/2010.01028 (Sec. 4); ``(N, s, s')`` of its tables.

    The queue, the key encoder and their order are MoCo's. No code of the authors is public; pairs are drawn with
    replacement from the N hardest (a point may meet itself), as in davidsvy/hard-negative-mixing@2955553.

    Args:
        projector, temperature, momentum, queue_size: As of :class:`MoCo`; v2's are the paper's.
        hardest_of: N, keys of the queue nearest to a query, from which negatives are mixed; at most ``queue_size``.
        pairs: s, negatives between two of them, at a uniform place.
        with_query: s', negatives between the query (weight uniform in [0, 0.5)) and one of them.
        through_query: Let the gradient flow into the query's part of the latter; the paper does not say, no is usual.
        mix_start: Epoch from which negatives are mixed: the hardest of an untrained queue mean nothing.
    """

    begins = ("mix_start",)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        temperature: Positive = 0.2,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
        hardest_of: int = 1024,
        pairs: Count = 1024,
        with_query: Count = 128,
        through_query: bool = False,
        mix_start: Count = 10,
    ) -> None:
        super().__init__(backbone, optimizer, data_info, projector, temperature, momentum, queue_size)
        if not 1 <= hardest_of <= queue_size:
            raise ValueError(
                f"method.hardest_of={hardest_of}: wanted 1 to method.queue_size={queue_size}, the keys to choose from"
            )
        if pairs + with_query < 1:
            raise ValueError("method.pairs=0 and method.with_query=0 mix nothing; use method=moco_v2")
        self.hardest_of = hardest_of
        self.pairs = pairs
        self.with_query = with_query
        self.through_query = through_query
        self.mix_start = mix_start

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        h = self.backbone(query_view)                                                # [B, F]
        q = nn.functional.normalize(self.projector(h), dim=1)                        # [B, D]
        k = shuffled(self.teacher, key_view, batch.rng.shared("shuffle1"))
        k = nn.functional.normalize(k, dim=1)                                        # [B, D], no grad
        queue = self.queue.keys
        if self.progress.epoch < self.mix_start:
            loss = info_nce(q, k, queue, self.temperature)
        else:
            loss = info_nce_with(q, k, queue, self.mix(q, queue, batch), self.temperature)
        self.queue.push(gather(k))           # staged: a key must not be a negative of its own query
        return {"loss": loss, "features": h}

    def mix(self, q: Tensor, queue: Tensor, batch: Batch) -> Tensor:
        """Negatives ``[B, s + s', D]`` of each query's own."""
        n, draw = self.hardest_of, batch.rng.sample("mochi")
        near = hardest(q, queue, n)                                                  # [B, N], positions
        i = near.gather(1, draw.integers("first", n, self.pairs))                    # [B, s]
        j = near.gather(1, draw.integers("second", n, self.pairs))                   # [B, s]
        between = mixed(queue[i], queue[j], draw.uniform("alpha", self.pairs))       # [B, s, D]
        j = near.gather(1, draw.integers("third", n, self.with_query))               # [B, s']
        beta = 0.5 * draw.uniform("beta", self.with_query)                           # [B, s'], the key weighs more
        query = q if self.through_query else q.detach()
        return torch.cat([between, mixed(query[:, None], queue[j], beta)], dim=1)    # [B, s + s', D]
