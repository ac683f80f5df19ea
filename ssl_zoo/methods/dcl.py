"""DCL: SimCLR's loss without the positive in the denominator, which small batches need most."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.apply import per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import decoupled
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


class DCL(SimCLR):
    """Decoupled contrastive learning, Yeh et al. 2021, https://arxiv.org/abs/2110.06848 (eq. 6; DCLW: eq. 7).

    The authors published no code; the recorded values are those of raminnakhli/Decoupled-Contrastive-Learning@0b9b76d,
    which adds the two directions (``sum_directions``) and leaves the positive in the denominator with a weight of 1e-45
    (``leak``), where the paper takes it out. The two differ at temperatures of a hundredth only.

    Args:
        projector: Head on the features, as SimCLR's.
        temperature: > 0.
        sigma: Temperature of the weights of the positives, 0.5 in the paper (DCLW); None: all 1 (DCL).
        leak: Log-weight of what is taken out of the denominator, -103.616 = ln(1e-45) in that code; None: 0.
        sum_directions: Twice the mean over all 2B anchors, as that code.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        apart: A log-sum-exp for the negatives of either view (lightly's run); None: one for all. Not with ``leak``.
        views_together: Whether batch norm sees both views at once (lightly's run); None: as in that code.
    """

    authors_pass = staticmethod(per_view)  # batch norm sees each view alone, as in that code

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.1,
        sigma: Positive | None = None,
        leak: float | None = None,
        sum_directions: bool = True,
        grad_cache: Size = 1,
        apart: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, projector, temperature, sum_directions, grad_cache, views_together)
        self.sigma = sigma
        self.leak = leak
        if apart and leak is not None:
            raise ValueError("method.apart=true takes the positive out for good, and method.leak leaves it in; set one")
        self.apart = bool(apart)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, *z = in_chunks(self, self.encode, batch.views, self.grad_cache)           # [B, F], 2 x [B, D]
        keys = [gather(x) for x in z]                                                # 2 x [W * B, D]
        options = self.temperature, self.sigma, self.leak, self.apart
        loss = decoupled(z[0], z[1], keys[0], keys[1], rank() * len(z[0]), *options)
        return {"loss": 2 * loss if self.sum_directions else loss, "features": h}
