"""TS2Vec: features of every step of a time series, which agree where two crops overlap."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.backbones.series.base import SeriesBackbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.hierarchical_contrast import hierarchical_contrast
from ssl_zoo.methods.base import Compared, Method
from ssl_zoo.modules.ema import EMA, TeacherEvaluated
from ssl_zoo.modules.masking.steps import Kind, kept_steps
from ssl_zoo.modules.series_cuts import centred, one_section, overlapping
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Count, Share, Size


class TS2Vec(TeacherEvaluated, Method):
    """TS2Vec, Yue et al. 2022, https://arxiv.org/abs/2106.10466, as zhihanyue/ts2vec@b0088e14.

    The method cuts its crops out of whole series by itself, because the two must overlap. What is evaluated is the mean
    of the weights after every step, those at the start included, as the authors' ``swa_utils.AveragedModel``.

    Args:
        alpha: Weight of the comparison between series; the rest is that of the comparison between steps.
        temporal_unit: First scale at which steps are compared; raise it for very long series.
        mask: Of the projected steps in training: binomial (the paper), continuous, or all (none is hidden).
        longest: Series of at least twice so many steps are cut into pieces of about that length.
        evaluate_student: Evaluate and export the last weights; None: the mean.
    """

    backbone: SeriesBackbone
    views_required = (1, 0)
    views_allowed = (1, 0)
    modality = "series"
    tensor_views = True

    def __init__(
        self,
        backbone: SeriesBackbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        alpha: Share = 0.5,
        temporal_unit: Count = 0,
        mask: Kind = "binomial",
        longest: Size = 3000,
        evaluate_student: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        if not getattr(backbone, "has_steps", False):
            raise ConfigError(
                f"TS2Vec needs features of each step, and {backbone.name} has none; take backbone=ts2vec_encoder"
            )
        self.alpha = alpha
        self.compares: Compared | None = None if alpha < 1 else "batch"   # one series still has its own steps
        self.least = 2 ** (temporal_unit + 1)
        self.temporal_unit = temporal_unit
        self.mask = mask
        self.longest = longest
        self.evaluate_student = bool(evaluate_student)
        self.teacher = EMA(backbone, statistics=True)
        if data_info.length < self.least:
            raise ConfigError(
                f"method.temporal_unit={temporal_unit} wants series of at least {self.least} steps, and those of the "
                f"data have {data_info.length}"
            )

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        series = centred(one_section(batch.views[0], self.longest, batch.rng))       # [B, T, C]
        crops = overlapping(series, batch.rng, self.least)
        a = self._steps(crops.first, batch, "first")[:, -crops.overlap :]            # [B, S, F]
        b = self._steps(crops.second, batch, "second")[:, : crops.overlap]           # [B, S, F]
        keys = gather(a), gather(b)                                                  # 2 x [W * B, S, F]
        loss = hierarchical_contrast(a, b, *keys, rank() * len(a), self.alpha, self.temporal_unit)
        return {"loss": loss}

    def _steps(self, crop: Tensor, batch: Batch, name: str) -> Tensor:
        keep = kept_steps(self.mask, crop.shape[1], batch.rng.sample(f"mask of the {name}"))
        return self.backbone.forward_steps(crop, keep)

    def after_step(self) -> None:
        taken = self.progress.step + 1   # steps, and as many iterates before this one
        self.teacher.update(self.backbone, taken / (taken + 1))
