"""W-MSE: whiten the projections of a batch, then compare the views of an image."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather
from ssl_zoo.losses.whitening import whitened_mse
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe


class WMSE(Method):
    """W-MSE, Ermolov et al. 2020, https://arxiv.org/abs/2007.06346 (eq. 4-6), as htdt/self-supervised.

    W-MSE 2 and W-MSE 4 are the number of views (``augmentation.views.0.count``). The views go through the backbone one
    by one and through the projector together, as in the authors' code, so that its batch norm sees all of them.

    Args:
        projector: Two layers with batch norm.
        sub_batch: Rows that are whitened together; more than the width of the projection, twice it in the paper.
        rounds: Permutations of the batch over which the loss is averaged.
        shrinkage: Share of the identity in the covariance; the authors use none.
        euclidean: Compare whitened entries instead of directions.
        scope: ``global``: sub-batches are drawn from the whole batch, as on the authors' one process; ``rank``: from
            the rows of a process, which changes with the number of processes.
        one_sided: No gradient through the second view of a pair (solo-learn); None: through both.
        views_together: Whether the projector's batch norm sees all views at once; None: it does.
    """

    views_allowed = (None, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        sub_batch: int = 128,
        rounds: int = 1,
        shrinkage: float = 0.0,
        euclidean: bool = False,
        scope: Literal["global", "rank"] = "global",
        one_sided: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.sub_batch = sub_batch
        self.rounds = rounds
        self.shrinkage = shrinkage
        self.euclidean = euclidean
        self.scope = scope
        self.compares = "batch" if scope == "global" else "process"
        self.one_sided = bool(one_sided)
        self.passes = passing(views_together, concat)
        _check(sub_batch, data_info.batch_size, self.projector.out_features, rounds, shrinkage)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # V x [B, F]
        z = self.passes(self.projector, h)                                           # V x [B, D]
        rows = [gather(x) for x in z] if self.scope == "global" else z               # V x [N, D]
        draw = batch.rng.shared("whitening")
        orders = [draw.permutation(len(rows[0]), i) for i in range(self.rounds)]     # rounds x [N]
        loss = whitened_mse(rows, orders, self.sub_batch, self.shrinkage, self.euclidean, self.one_sided)
        return {"loss": loss, "features": h[0]}

    def share_problem(self, samples: int) -> str | None:
        if self.scope == "global" or not samples % self.sub_batch:
            return None
        fits = _nearest(self.sub_batch, samples)
        smaller = f"method.sub_batch={fits}, or " if fits > self.projector.out_features or self.shrinkage else ""
        return (
            f"method.sub_batch={self.sub_batch} does not divide the {samples} rows of a process, which "
            f"method.scope=rank whitens by themselves; try {smaller}method.scope=global"
        )


def _check(sub_batch: int, rows: int, dim: int, rounds: int, shrinkage: float) -> None:
    if rounds < 1:
        raise ValueError(f"method.rounds={rounds}: wanted 1 or more")
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"method.shrinkage={shrinkage}: wanted a share from 0 to 1")
    if sub_batch < 1 or rows % sub_batch:
        fits = _nearest(sub_batch, rows)
        raise ValueError(
            f"method.sub_batch={sub_batch} does not divide the {rows} rows of a micro-batch over all devices; "
            f"try method.sub_batch={fits}"
        )
    if sub_batch <= dim and not shrinkage:
        raise ValueError(
            f"method.sub_batch={sub_batch}: rows cannot be whitened in {dim} dimensions unless there are more of them; "
            f"try method.projector.out_features={max(sub_batch // 2, 1)}, a larger data.batch_size with "
            "method.sub_batch, or method.shrinkage=0.001"
        )


def _nearest(sub_batch: int, rows: int) -> int:
    """The largest number up to ``sub_batch`` that divides ``rows``."""
    return max(n for n in range(1, min(max(sub_batch, 1), rows) + 1) if rows % n == 0)
