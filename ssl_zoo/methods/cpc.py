"""CPC: the context of what was heard predicts what follows, some steps ahead, in latent space."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.base import Backbone, Frames
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.losses.predictive_coding import (
    batch_time_info_nce,
    binary_match,
    future_info_nce,
    match_probability,
)
from ssl_zoo.methods.base import Compared, Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.negatives import other_sequence, uniform_negatives
from ssl_zoo.modules.patch_rows import PatchRows
from ssl_zoo.modules.step_predictors import StepPredictors
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size
from ssl_zoo.sides import square

Variant = Literal["sampled", "batch_time", "binary"]


class CPC(Method):
    """CPC, van den Oord et al. 2018, https://arxiv.org/abs/1807.03748 (eq. 3 and 4).

    ``sampled`` is the loss of facebookresearch/CPC_audio@b98a1bd (negatives that all steps share, drawn from batch and
    time, at every time of the context); ``batch_time`` that of vgaraujov/CPC-NLP-PyTorch@a182f28 (from the last context
    that has K later frames, against these frames of the whole batch); ``binary`` that of
    davidtellez/contrastive-predictive-coding@67657aa (the same context, whether K frames are its own or another
    sequence's). A network that has frames brings its own context (``cpc_encoder``); any network of images reads patches
    that overlap by half, column by column from top to bottom, under a masked context.

    Args:
        context: Of images: called with the width of the features, same width.
        steps: K; of images at most half as many as there are rows: at the other half the context is read.
        negatives: M, of ``sampled``.
        variant: Which loss.
        bias: Whether predictions have one (for sentences).
        patch: Of images: side of a patch over that of the image.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    compares: Compared | None = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        context: Head,
        steps: Size = 12,
        negatives: Size = 128,
        variant: Variant = "sampled",
        bias: bool = False,
        patch: Positive = 0.25,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.variant", variant, ("sampled", "batch_time", "binary"))
        self.rows = None if backbone.has_frames else self._rows(data_info, context, patch)
        widths = backbone.frame_widths if self.rows is None else (backbone.out_features,) * 2
        ahead = steps if self.rows is None else min(steps, self.rows.frames // 2)
        self.predictors = StepPredictors(*widths, ahead, bias)
        self.negatives = negatives
        self.variant = variant

    def _rows(self, data_info: DataInfo, context: Head, patch: float) -> PatchRows:
        if "image_size" not in data_info.facts:
            self.backbone.require_frames(type(self).__name__)
        return PatchRows(self.backbone.out_features, context, square(data_info), patch)

    def frames(self, view: Any) -> Frames:
        return self.backbone.forward_frames(view) if self.rows is None else self.rows(self.backbone, view)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        pooled, z, context = self.frames(batch.views[0])       # [B, F], [B * R, S, D], [B * R, S, C]
        if z.shape[1] <= len(self.predictors):
            raise ConfigError(
                f"method.steps={len(self.predictors)}: a view has {z.shape[1]} frames, and wanted are more than steps; "
                f"lower it to {z.shape[1] - 1} or less, or set a longer augmentation.window"
            )
        p = self.predictors(context)                           # K x [B * R, S - K, D]
        losses, hits = getattr(self, f"_{self.variant}")(p, z, batch.rng, len(z) // len(pooled))      # [K] each
        return {"loss": losses.sum(), "features": pooled, "accuracy": hits.mean()}

    def _sampled(self, p: list[Tensor], z: Tensor, rng: BatchRNG, each: int) -> tuple[Tensor, Tensor]:
        pool, draw = gather(z), rng.sample("negatives")        # [N, S, D]
        rows = uniform_negatives(draw, len(pool), z.shape[1], self.negatives, p[0].shape[1], each)
        # Not by index: the gradient of index_select is cheaper on a CPU.
        drawn = pool.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return future_info_nce(p, z, drawn)

    def _batch_time(self, p: list[Tensor], z: Tensor, rng: BatchRNG, each: int) -> tuple[Tensor, Tensor]:
        last = torch.stack([x[:, -1] for x in p])              # [K, B * R, D]
        later = gather(z[:, -len(p) :])                        # [N, K, D]
        return batch_time_info_nce(last, later.transpose(0, 1), rank() * len(z))

    def _binary(self, p: list[Tensor], z: Tensor, rng: BatchRNG, each: int) -> tuple[Tensor, Tensor]:
        last = torch.stack([x[:, -1] for x in p], 1)           # [B * R, K, D]
        later = gather(z[:, -len(p) :])                        # [N, K, D]
        own = rank() * len(z) + torch.arange(len(z), device=z.device)
        other = other_sequence(rng.sample("negatives"), own, len(later), each)
        probability = match_probability(last.repeat(2, 1, 1), later[torch.cat([own, other])])         # [2 B * R, 1]
        label = (torch.arange(len(probability), device=z.device) < len(z)).to(probability.dtype)[:, None]
        hits = ((probability > 0.5) == (label > 0.5)).to(probability.dtype)
        return binary_match(probability, label)[None], hits.detach()

    def embed(self, view: Any) -> Tensor:
        return self.backbone(view) if self.rows is None else self.rows(self.backbone, view).pooled
