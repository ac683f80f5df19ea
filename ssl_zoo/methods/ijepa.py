"""I-JEPA: from one block of an image, predict what a moving average of the encoder makes of the other blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.device import to_device
from ssl_zoo.distributed import own_rows, world_size
from ssl_zoo.errors import require
from ssl_zoo.losses.latent import latent_regression, latent_targets
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA, TeacherEvaluated
from ssl_zoo.modules.masking.multiblock import Blocks, MultiBlock, RandomPatches
from ssl_zoo.modules.token_predictor import TokenPredictor
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Linear, Schedule, value
from ssl_zoo.ranges import Share
from ssl_zoo.sides import square

FORMS = ("smooth_l1", "l2")


class IJEPA(TeacherEvaluated, Method):
    """I-JEPA, Assran et al. 2023, https://arxiv.org/abs/2301.08243 (Sec. 3, eq. 1).

    As facebookresearch/ijepa@52c1ae9: the teacher sees the whole view, the student the context block alone; targets are
    layer-normalised tokens, the distance is Huber's (the paper: squared). ``backbone=vit_patches`` is the authors'
    encoder, without class token and with fixed positions; with a class token the features are the patches' mean too.

    Args:
        masks: Draws context and target blocks for the global batch.
        token_predictor: To be built for the width of the encoder's tokens.
        form: ``smooth_l1`` or ``l2``.
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    needs_tokens = drops_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        masks: MultiBlock | RandomPatches,
        token_predictor: Callable[[int], TokenPredictor],
        form: Literal["smooth_l1", "l2"] = "smooth_l1",
        momentum: Share | Schedule = Linear(0.996, 1.0),  # noqa: B008  (frozen dataclass)
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.form", form, FORMS)
        side = square(data_info) // backbone.size_step
        masks.check((side, side))
        self.masks = masks
        self.token_predictor = token_predictor(backbone.out_features)
        self.teacher = EMA(backbone)
        self.form = form
        self.momentum = momentum

    def embed(self, view: Any) -> Tensor:
        """Mean of the teacher's patch tokens: ``[B, F]``."""
        return self.encoder.forward_tokens(view).patches.mean(1)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        (view,) = batch.views                                                        # [B, C, H, W]
        with torch.no_grad():
            _, t, grid = self.encoder.forward_tokens(view)                           # [B, N, F]
        context, targets = self.blocks(batch, grid)                                  # [E, B, K], [P, B, T]
        h = torch.cat([self.backbone.forward_tokens(view, keep).patches for keep in context])  # [E * B, K, F]
        p = self.token_predictor(h, context, targets, grid)                          # [P * E * B, T, F]
        loss = latent_regression(p, latent_targets(t, targets, len(context)), self.form)
        return {"loss": loss, "features": t.mean(1)}

    def blocks(self, batch: Batch, grid: tuple[int, int]) -> Blocks:
        """This process's blocks of those of the global batch, all cut to the same length."""
        view = batch.views[0]
        drawn = self.masks(batch.rng.host.shared("masks"), len(view) * world_size(), grid)
        return Blocks(*(to_device(own_rows(x.transpose(0, 1)).transpose(0, 1), view.device) for x in drawn))

    def after_step(self) -> None:
        self.teacher.update(self.backbone, value(self.momentum, self.progress))
