"""SCARF: a row of a table against rows of which a part was corrupted."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.apply import per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.losses.tables import clean_against_corrupted
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


class SCARF(SimCLR):
    """SCARF, Bahri et al. 2021, https://arxiv.org/abs/2106.15147 (Sec. 3, Algorithm 1).

    The first view is the row, the second one has ``floor(0.6 M)`` of its columns from other rows (``table/corrupt``).
    The authors published no code; clabrugere/pytorch-scarf@3cc5b06, the one that is best known, differs: it takes
    NT-Xent over both views (``both_directions``), and corrupts each column with a probability of 0.4, uniformly between
    the least and the largest number (``count: bernoulli, values: uniform``).

    Args:
        projector: Head on the features; two layers of 256 in the paper.
        temperature: > 0; 1 in the paper.
        both_directions: NT-Xent, whose anchors are both views, instead of the paper's InfoNCE of the clean ones.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        views_together: Whether batch norm sees both views at once; None: each view alone, as in that code.
    """

    modality = "table"
    authors_pass = staticmethod(per_view)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 1.0,
        both_directions: bool = False,
        grad_cache: Size = 1,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, projector, temperature, False, grad_cache, views_together)
        self.both_directions = both_directions

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, clean, corrupted = in_chunks(self, self.encode, batch.views, self.grad_cache)   # [B, F], 2 x [B, D]
        offset, keys = rank() * len(clean), gather(corrupted)                        # [W * B, D]
        if self.both_directions:
            loss = nt_xent(clean, corrupted, gather(clean), keys, offset, self.temperature)
        else:
            loss = clean_against_corrupted(clean, keys, offset, self.temperature)
        return {"loss": loss, "features": h}
