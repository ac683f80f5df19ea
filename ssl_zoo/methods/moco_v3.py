"""MoCo v3: contrast with a moving average of the encoder, against the other samples of the batch; made for ViTs."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.key_sets import in_batch_info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA, TeacherMoves
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import Positive, Share


class MoCoV3(TeacherMoves, Method):
    """MoCo v3, Chen, Xie, He 2021, https://arxiv.org/abs/2104.02057 (algorithm 1).

    As facebookresearch/moco-v3@c349e6e: both directions are added, not averaged, each times ``2 * temperature``, so
    that the size of the gradient hardly depends on the temperature. For ViTs the authors freeze the random patch
    projection: ``backbone.freeze_patch_embed=true``.

    Args:
        projector: 2 layers for ResNets, 3 for ViTs; batch norm after each, without scale and offset after the last.
        predictor: 2 layers; batch norm (without scale and offset) after the last only for ViTs.
        temperature: > 0; 1.0 for ResNets, 0.2 for ViTs.
        momentum: Of the teacher; updated before the teacher's forward, from the weights before this step's update.
        moves_after_step: Move the teacher right after the optimizer's step (solo-learn); None: before its forward.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        predictor: Head,
        temperature: Positive = 1.0,
        momentum: Share | Schedule = Cosine(0.99, 1.0),  # noqa: B008  (frozen dataclass)
        moves_after_step: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = predictor(self.projector.out_features)
        same_width(self.projector, self.predictor)
        self.teacher = EMA(self.student)
        self.temperature = temperature
        self.momentum = momentum
        self.moves_after_step = bool(moves_after_step)

    def move_teacher(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # 2 x [B, F]
        q = [self.predictor(self.projector(x)) for x in h]                           # 2 x [B, D]
        k = [gather(self.teacher(view)) for view in batch.views]                     # 2 x [W * B, D], no grad
        loss = self.contrast(q[0], k[1]) + self.contrast(q[1], k[0])
        return {"loss": loss, "features": h[0]}

    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = nn.functional.normalize(q, dim=1), nn.functional.normalize(k, dim=1)
        return 2 * self.temperature * in_batch_info_nce(q, k, rank() * len(q), self.temperature)
