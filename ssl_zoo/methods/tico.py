"""TiCo: agree with a teacher's view of the sample, and stay away from the directions that many samples share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.losses.covariance_contrast import tico
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.covariance import RunningMoments
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import NonNegative, Share


class TiCo(Method):
    """TiCo, Zhu et al. 2022, https://arxiv.org/abs/2206.10698 (algorithm 1).

    The authors' code is not public: written from memory of the paper, with the values of lightly-ai/lightly
    (``TiCoLoss``, examples), which says that they are the paper's. lightly's loss also centres the batch; here, as in
    the paper, embeddings are only normalised. The teacher moves before its forward, from the last step's weights.

    Args:
        projector: Two layers with batch norm, as BYOL's.
        rho: Weight of the covariance contrast.
        beta: Momentum of the covariance, in [0, 1].
        momentum: Of the teacher.
        centre: Subtract the batch's mean before normalising, as lightly does.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        rho: NonNegative = 20.0,
        beta: Share = 0.9,
        momentum: Share | Schedule = Cosine(0.99, 1.0),  # noqa: B008  (frozen dataclass)
        centre: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.teacher = EMA(self.student)
        self.covariance = RunningMoments(self.projector.out_features, beta)
        self.rho = rho
        self.momentum = momentum
        self.centre = centre

    def before_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, F]
        z = self.unit(self.projector(h))                                             # [B, D]
        t = self.unit(self.teacher(batch.views[1]))                                  # [B, D], no grad
        covariance = self.covariance(gather(z))                                      # [D, D]
        invariance, contrast = tico(z, t, covariance, self.rho)
        return {"loss": invariance + contrast, "features": h, "invariance": invariance, "contrast": contrast}

    def unit(self, z: Tensor) -> Tensor:
        z = z - gather(z).mean(0) if self.centre else z
        return F.normalize(z, dim=1)
