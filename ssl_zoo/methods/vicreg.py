"""VICReg: variance, invariance and covariance, each with a weight."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.losses.redundancy import vicreg
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Size


class VICReg(Method):
    """VICReg, Bardes et al. 2021, https://arxiv.org/abs/2105.04906 (eq. 1-6).

    Args:
        projector: The paper's expander, three wide layers.
        invariance, variance, covariance: Weights of the three terms (25, 25, 1 in the paper).
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        invariance: NonNegative = 25.0,
        variance: NonNegative = 25.0,
        covariance: NonNegative = 1.0,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance
        self.grad_cache = grad_cache

    def encode(self, view: Tensor) -> tuple[Tensor, Tensor]:
        h = self.backbone(view)                                                      # [B, F]
        return h, self.projector(h)                                                  # [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, z = zip(*[in_chunks(self, self.encode, view, self.grad_cache) for view in batch.views], strict=True)
        keys = [gather(x) for x in z]                                                # 2 x [W * B, D]
        loss = vicreg(z[0], z[1], keys[0], keys[1], self.invariance, self.variance, self.covariance)
        return {"loss": loss, "features": h[0]}
