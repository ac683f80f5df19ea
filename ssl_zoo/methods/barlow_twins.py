"""Barlow Twins: the cross-correlation of two views should be the identity."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.losses.redundancy import barlow_twins
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Size


class BarlowTwins(Method):
    """Barlow Twins, Zbontar et al. 2021, https://arxiv.org/abs/2103.03230 (eq. 1).

    The authors' code all-reduces the matrix outside autograd, so that W processes train with 1/W of the gradient of
    the global loss (``main.py``); LARS hides that for the weights but not for biases and norms, whose learning rate
    was tuned that way, on 32 processes in the paper and 16 in the README.

    Args:
        projector: Three wide layers.
        off_diagonal: Weight of the redundancy term, lambda of the paper.
        loss_scale: Factor of the loss; the authors' code has none, small-image recipes use 0.1.
        authors_gradient: Divide the gradient by this number of the authors' processes, whatever the number of one's
            own; None: exact. False, of runs of earlier versions, is None too.
        norm_group: Rows of the global batch that are standardised together; None: all (the authors' SyncBatchNorm).
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        off_diagonal: NonNegative = 0.0051,
        loss_scale: Positive = 1.0,
        authors_gradient: Size | bool | None = None,
        norm_group: Size | None = None,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        if authors_gradient is True:
            raise ValueError(
                "method.authors_gradient=true: it was 1 / the number of processes at hand, which changed the run with "
                "them; wanted the number of the authors' processes, 32 (paper) or 16 (README), or null: exact"
            )
        self.projector = projector(backbone.out_features)
        self.off_diagonal = off_diagonal
        self.loss_scale = loss_scale
        self.authors_gradient = authors_gradient or 1
        self.norm_group = norm_group
        self.grad_cache = grad_cache

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor]:
        h = self.backbone(view)                                                      # [B, F]
        return h, self.projector(h)                                                  # [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, z = zip(*[in_chunks(self, self.encode, view, self.grad_cache) for view in batch.views], strict=True)
        loss = self.loss_scale * barlow_twins(gather(z[0]), gather(z[1]), self.off_diagonal, self.norm_group)
        share = loss / self.authors_gradient
        return {"loss": share + (loss - share).detach(), "features": h[0]}
