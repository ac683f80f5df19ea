"""i-Mix on BYOL: a mixed query predicts the embeddings of both its images."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.mixed_targets import mixed_regression
from ssl_zoo.methods.base import Method
from ssl_zoo.methods.imix import turns
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.modules.mixing import Mixer
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value
from ssl_zoo.ranges import Share


class IMixBYOL(Method):
    """i-Mix on BYOL, as ``builder.py --method byol``: one direction, and the teacher moves before its forward pass.

    Args:
        projector, predictor: Two layers, batch norm in the hidden one.
        mixer: What is mixed, and how.
        momentum: Of the teacher, in [0, 1].
        symmetric: Each view is query and key in turn and both losses are added (``--sym``).
    """

    tensor_views = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        predictor: Head,
        mixer: Mixer = Mixer(),  # noqa: B008  (frozen dataclass)
        momentum: Share | Schedule = 0.999,
        symmetric: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = predictor(self.projector.out_features)
        same_width(self.projector, self.predictor)
        self.teacher = EMA(self.student)
        self.mixer = mixer
        self.compares = mixer.compares
        self.momentum = momentum
        self.symmetric = symmetric

    def before_step(self) -> None:
        self.teacher.update(self.student, value(self.momentum, self.progress))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        batch = self.mixer.inputs(batch)
        losses = []
        for query, key in turns(self.symmetric):
            mixed = self.mixer.mix(batch.views[query], batch.rng, f"mix{query}")     # [B, ...], 2 x [B, 2]
            q = nn.functional.normalize(self.predictor(self.projector(self.backbone(mixed.view))), dim=1)  # [B, D]
            draw = batch.rng.shared(f"shuffle{key}")
            k = nn.functional.normalize(shuffled(self.teacher, batch.views[key], draw), dim=1)  # [B, D], no grad
            losses.append(mixed_regression(q, gather(k), mixed.positives, mixed.weights))
        return {"loss": sum(losses[1:], losses[0])}  # no features: those of mixed images would mislead a probe
