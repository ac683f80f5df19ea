"""VIME: which cells of a row were replaced, and what stood there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_zoo.augmentations.registry import parse
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.tables import mask_entropy, rebuilt
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Size

CHANGED = "1/table/corrupt/changed"  # what the operation reports of the second view


class VIME(Method):
    """VIME, Yoon et al. 2020, https://papers.nips.cc/paper/2020/hash/7d97667a3e056acab9aaf653807b4a03-Abstract.html.

    As ``vime_self.py`` of jsyoon0823/VIME@996c58c: one layer encodes the corrupted row; one head says which cells were
    really changed, another one what all inputs were. Inputs lie in [0, 1] (``data.source.numbers=minmax``).

    Args:
        inputs: Numbers of a row; None: the data say it.
        columns: Names of the columns; None: the data say them.
        unit_range: Whether the numbers of the table lie in [0, 1]; None: the data say it.
        alpha: Weight of the second head's loss.
    """

    modality = "table"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        inputs: Size | None = None,
        columns: Sequence[str] | None = None,
        unit_range: bool | None = None,
        alpha: NonNegative = 2.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        if inputs is None or columns is None:
            raise ValueError("method=vime needs a table, whose inputs and columns the data say; choose data=table")
        if unit_range is False:
            raise ValueError("method=vime rebuilds numbers from 0 to 1, and those of the table are not; set "
                             "data.source.numbers=minmax")
        self.mask_head = nn.Linear(backbone.out_features, len(columns))
        self.feature_head = nn.Linear(backbone.out_features, inputs)
        self.alpha = alpha

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        ops = [[parse(entry)[0] for entry in view["ops"]] for view in views for _ in range(view.get("count", 1))]
        if [names.count("table/corrupt") for names in ops] == [0, 1]:
            return None
        return (
            "augmentation: VIME learns which cells table/corrupt changed in its second view, and from the first one, "
            "which is not corrupted, what stood there; augmentation=vime has these"
        )

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        clean, corrupted = batch.views                                               # 2 x [B, inputs]
        h = self.backbone(corrupted)                                                 # [B, F]
        mask = batch.extra[CHANGED].to(clean.dtype)                                  # [B, M]
        guess = mask_entropy(self.mask_head(h), mask)
        values = rebuilt(self.feature_head(h), clean)
        return {"loss": guess + self.alpha * values, "features": h, "mask": guess, "values": values}
