"""SimCLR: agreement of two views against the rest of the batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.base import Compared, Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


class SimCLR(Method):
    """SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709 (eq. 1, algorithm 1).

    The authors' code (``tf2/objective.py``) adds the losses of the two directions where the paper averages over all
    2B anchors: ``sum_directions`` chooses the code's value, twice the paper's. Both views go through the networks in
    one pass, as in ``tf2/model.py``: batch norm takes its statistics from all 2B of them.

    Args:
        projector: Head on the features; 2048-128 with batch norm in the authors' code.
        temperature: > 0.
        sum_directions: Twice the paper's value, as in the authors' code.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        views_together: Whether batch norm sees all views at once; None: as the authors' code.
        base_temperature: The loss is ``temperature / base_temperature`` times as large, as SupContrast's SimCLR with
            0.07, which only scales the gradient; None: as it is.
    """

    authors_pass = staticmethod(concat)  # how views go through a network
    compares: Compared | None = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.1,
        sum_directions: bool = True,
        grad_cache: Size = 1,
        views_together: bool | None = None,
        base_temperature: Positive | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.temperature = temperature
        self.sum_directions = sum_directions
        self.base_temperature = base_temperature
        self.grad_cache = grad_cache
        self.passes = passing(views_together, self.authors_pass)

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = self.passes(self.backbone, views)                                        # 2 x [B, F]
        z = self.passes(self.projector, h)                                           # 2 x [B, D]
        return h[0], *[nn.functional.normalize(x, dim=1) for x in z]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, *z = in_chunks(self, self.encode, batch.views, self.grad_cache)           # [B, F], 2 x [B, D]
        keys = [gather(x) for x in z]                                                # 2 x [W * B, D]
        loss = nt_xent(z[0], z[1], keys[0], keys[1], rank() * len(z[0]), self.temperature)
        scale = self.temperature / self.base_temperature if self.base_temperature else 1.0
        return {"loss": scale * (2 * loss if self.sum_directions else loss), "features": h}
