"""CPC v2: the rows of an image above predict the rows below, patch by patch, in latent space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import require
from ssl_zoo.losses.predictive_coding import rows_below
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.patch_rows import patch_grid, patches_of
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size
from ssl_zoo.sides import square

FIRST = 2  # the adjacent row overlaps with the patch: it is not predicted


class CPCv2(Method):
    """CPC v2, Henaff et al. 2019, https://arxiv.org/abs/1905.09272 (eq. 1), as ``CPCTask`` of Lightning Bolts.

    The authors' code is not public; Lightning-Universe/lightning-bolts@34958a8 is the best known. Two quirks of it are
    kept by default: one prediction serves all distances (the paper has one for each, from memory: ``shared=false``),
    and its double loop counts the distance of r rows r - 1 times (``weighting=equal``: once). Batch norm lets the
    patches of an image know of each other; Bolts' encoder has layer norm, here it is the backbone that was chosen. What
    is evaluated is the mean of the patches' features.

    Args:
        context: Called with the width of the features: what a place knows of the rows above, same width.
        targets: Width of the common space.
        scale: Factor of the predictions in the scores.
        patch: Side of a patch over that of the image; neighbours overlap by half.
        shared: One prediction for all distances.
        weighting: ``nested``: a distance of r rows counts r - 1 times; ``equal``: once.

    Raises:
        ValueError: If the grid of patches has fewer than 3 rows.
    """

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (1, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        context: Head,
        targets: Size = 64,
        scale: Positive = 0.1,
        patch: Positive = 0.25,
        shared: bool = True,
        weighting: Literal["nested", "equal"] = "nested",
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.weighting", weighting, ("nested", "equal"))
        self.side, rows = patches_of(square(data_info), patch)
        width = backbone.out_features
        self.context = context(width)
        self.target = nn.Conv2d(width, targets, 1)
        self.predictors = nn.ModuleList(nn.Conv2d(width, targets, 1) for _ in range(1 if shared else rows - FIRST))
        self.scale, self.weighting = scale, weighting

    def grid(self, view: Tensor) -> Tensor:
        """Features of the patches ``[B, P, C, s, s]``, or of an image ``[B, C, H, W]``: ``[B, F, G, G]``."""
        return patch_grid(self.backbone, view, self.side)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        z = self.grid(batch.views[0])                                                # [B, F, G, G]
        t = gather(self.target(z))                                                   # [W * B, D, G, G]
        context = self.context(z)                                                    # [B, F, G, G]
        p = [predict(context) for predict in self.predictors]                        # 1 or G - 2 x [B, D, G, G]
        distances = range(FIRST, z.shape[2])
        terms = {r: rows_below(p[min(r - FIRST, len(p) - 1)], t, r, rank() * len(z), self.scale) for r in distances}
        weights = {r: r - 1 if self.weighting == "nested" else 1 for r in terms}
        loss = torch.stack([weights[r] * term for r, term in terms.items()]).sum()
        return {"loss": loss, "features": z.mean((2, 3)), **{f"rows{r}": term for r, term in terms.items()}}

    def embed(self, view: Tensor) -> Tensor:
        return self.grid(view).mean((2, 3))
