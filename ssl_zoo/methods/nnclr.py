"""NNCLR: the positive is not the other view but its nearest neighbour among past samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.losses.mixed_targets import n_pair
from ssl_zoo.losses.search import most_similar
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


class NNCLR(Method):
    """NNCLR, Dwibedi et al. 2021, https://arxiv.org/abs/2104.14548 (algorithm 1).

    The authors published no code; order and values are those of algorithm 1 and of solo-learn@9187ea3. The projections
    of the first view enter the support set after the search.

    Args:
        projector: Three layers, batch norm after each of them.
        predictor: Two layers, batch norm in the hidden one.
        temperature: > 0.
        queue_size: Rows of the support set; a multiple of the samples of a micro-batch over all devices.
        in_view_negatives: SimCLR's 2B - 2 negatives, neighbours among them (lightly@e8d317f), instead of the B - 1
            predictions of the other view.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        predictor: Head,
        temperature: Positive = 0.1,
        queue_size: Size = 98304,
        in_view_negatives: bool = False,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = predictor(self.projector.out_features)
        same_width(self.projector, self.predictor)
        self.queue = Queue(queue_size, self.projector.out_features, rows=data_info.batch_size)
        self.temperature = temperature
        self.in_view_negatives = in_view_negatives
        self.grad_cache = grad_cache

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.backbone(view)                                                      # [B, F]
        z = self.projector(h)                                                        # [B, D]
        p = self.predictor(z)                                                        # [B, D]
        return h, nn.functional.normalize(z, dim=1), nn.functional.normalize(p, dim=1)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, z, p = zip(*[in_chunks(self, self.encode, view, self.grad_cache) for view in batch.views], strict=True)
        rows = [self.queue.keys[self.nearest(x)] for x in z]                         # 2 x [B, D], no grad
        neighbours = [nn.functional.normalize(row, dim=1) for row in rows]           # as algorithm 1 does once more
        loss = (self.compare(neighbours[0], p[1]) + self.compare(neighbours[1], p[0])) / 2
        self.queue.push(gather(z[0].detach()))  # staged: a sample must not find itself
        return {"loss": loss, "features": h[0]}

    def nearest(self, z: Tensor) -> Tensor:
        """``[B]`` places of the most similar rows of the support set."""
        return most_similar(z, self.queue.keys)

    def compare(self, neighbours: Tensor, p: Tensor) -> Tensor:
        first, keys = rank() * len(p), gather(p)                                     # [W * B, D]
        if self.in_view_negatives:
            return nt_xent(neighbours, p, gather(neighbours), keys, first, self.temperature)
        return n_pair(neighbours, keys, torch.arange(len(p), device=p.device) + first, self.temperature)
