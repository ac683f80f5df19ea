"""HCL: SimCLR with negatives weighted by how hard they are, less those that are falsely negatives."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.apply import per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import hard_negatives
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import NonNegative, Positive, Size


class HCL(SimCLR):
    """Hard negatives, Robinson et al. 2020, https://arxiv.org/abs/2010.04592 (eq. 4), as ``image/main.py``.

    ``beta=0`` is the debiased loss (https://arxiv.org/abs/2007.00224), and with ``positive_share=0`` too SimCLR's,
    averaged over all 2B anchors. Gradient flows through the weights, as in the authors' code.

    Args:
        projector: Head on the features; 512-128 with batch norm in the authors' code.
        temperature: > 0.
        beta: Concentration on the hardest negatives, >= 0, or a schedule (``--anneal down``: to 0 along the run).
        positive_share: Chance that a negative has the anchor's class (tau+), in [0, 1): 1 / classes if balanced.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    authors_pass = staticmethod(per_view)  # batch norm sees each view alone, as in ``image/main.py``

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.5,
        beta: NonNegative | Schedule = 1.0,
        positive_share: float = 0.1,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer, projector, temperature, sum_directions=False, grad_cache=grad_cache)
        if not 0 <= positive_share < 1:
            raise ValueError(f"method.positive_share={positive_share}; wanted 0 or more and below 1, a probability")
        self.beta = beta
        self.positive_share = positive_share

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, *z = in_chunks(self, self.encode, batch.views, self.grad_cache)           # [B, F], 2 x [B, D]
        keys = [gather(x) for x in z]                                                # 2 x [W * B, D]
        beta = value(self.beta, self.progress)
        loss = hard_negatives(
            z[0], z[1], keys[0], keys[1], rank() * len(z[0]), self.temperature, beta, self.positive_share
        )
        return {"loss": loss, "features": h}
