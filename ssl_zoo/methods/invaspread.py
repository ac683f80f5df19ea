"""InvaSpread: an instance is recognised in its other view, and in no other instance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.spread import instance_spread
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


class InvaSpread(Method):
    """Invariant and spreading features, Ye et al. 2019, https://arxiv.org/abs/1904.03436.

    As ``main.py`` and ``BatchAverage.py``: two augmented views where the paper compares an image with its augmented
    copy, both are anchors, both go through the encoder together, and no gradient reaches the second factor of a
    similarity (``stop_gradient``), which halves the usual gradient.

    Args:
        projector: One linear layer.
        temperature: > 0.
        negative_weight: m > 0 of the code, of the term that spreads.
        stop_gradient: As the authors' code; False: both factors learn, as the paper's equations read.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        views_together: Whether batch norm sees both views at once, as on one device of the authors'; None: it does.
        evaluate_head: Evaluate the unit embeddings, as the authors' nearest neighbours; None: the encoder.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.1,
        negative_weight: Positive = 1.0,
        stop_gradient: bool = True,
        grad_cache: Size = 1,
        views_together: bool | None = None,
        evaluate_head: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.temperature = temperature
        self.negative_weight = negative_weight
        self.stop_gradient = stop_gradient
        self.grad_cache = grad_cache
        self.passes = passing(views_together, concat)
        self.evaluate_head = bool(evaluate_head)

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = self.passes(self.backbone, views)                                        # 2 x [B, F]
        z = self.passes(self.projector, h)                                           # 2 x [B, D]
        return *h, *[nn.functional.normalize(x, dim=1) for x in z]                   # 2 x [B, F], 2 x [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, _, *views = in_chunks(self, self.encode, batch.views, self.grad_cache)    # [B, F], -, 2 x [B, D]
        z = torch.cat(views)                                                         # [2B, D]
        keys = gather(z.detach() if self.stop_gradient else z)                       # [W * 2B, D]
        row = torch.arange(len(z), device=z.device)                                  # [2B]
        own, partner = (rank() * len(z) + place for place in (row, row.roll(len(h))))
        loss = instance_spread(z, keys, own, partner, self.temperature, self.negative_weight)
        return {"loss": loss, "features": views[0] if self.evaluate_head else h}

    def embed(self, view: Tensor) -> Tensor:
        h = self.encoder(view)
        return nn.functional.normalize(self.projector(h), dim=1) if self.evaluate_head else h
