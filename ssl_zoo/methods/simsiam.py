"""SimSiam: a siamese network without negatives and without a teacher; the stop-gradient is all."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.regression import negative_cosine
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.optim.recipe import OptimizerRecipe


class SimSiam(Method):
    """SimSiam, Chen & He 2020, https://arxiv.org/abs/2011.10566 (algorithm 1).

    Args:
        projector: Three layers with batch norm, the last norm without affine parameters.
        predictor: Bottleneck; its learning rate stays constant in the recipe.
        stop_gradient: False is the paper's ablation that collapses (figure 2).
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        predictor: Head,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = predictor(self.projector.out_features)
        same_width(self.projector, self.predictor)
        self.stop_gradient = stop_gradient

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # 2 x [B, F]
        z = [self.projector(x) for x in h]                                           # 2 x [B, D]
        p = [self.predictor(x) for x in z]                                           # 2 x [B, D]
        t = [x.detach() for x in z] if self.stop_gradient else z                     # 2 x [B, D]
        loss = (negative_cosine(p[0], t[1]) + negative_cosine(p[1], t[0])) / 2
        return {"loss": loss, "features": h[0], "embeddings": z[0]}
