"""TS-TCC: the past of a weak view of a time series predicts the future of a strong one, and the other way round."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.series.base import SeriesBackbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.losses.temporal_prediction import temporal_prediction
from ssl_zoo.methods.base import Compared, Method
from ssl_zoo.modules.temporal_contrast import TemporalContrast
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Rate, Size


class TSTCC(Method):
    """TS-TCC, Eldele et al. 2021, https://arxiv.org/abs/2106.14112 (eq. 1-4), as emadeldeen24/TS-TCC@15bdfd6e.

    The features along a series are brought to length 1 first. Each direction predicts from a moment of its own, which
    all series of a batch share. The two optimizers of the authors have the same settings: one does the same.

    Args:
        timesteps: K, steps along the features that are predicted.
        hidden: Width of the context.
        depth, heads, mlp, dropout: Of the transformer that makes it.
        temperature: > 0, of the contrast of contexts.
        temporal_weight: Of the two predictions (lambda 1).
        context_weight: Of that contrast (lambda 2).
    """

    backbone: SeriesBackbone
    modality = "series"
    compares: Compared | None = "batch"

    def __init__(
        self,
        backbone: SeriesBackbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        timesteps: Size = 6,
        hidden: Size = 100,
        depth: Size = 4,
        heads: Size = 4,
        mlp: Size = 64,
        dropout: Rate = 0.1,
        temperature: Positive = 0.2,
        temporal_weight: NonNegative = 1.0,
        context_weight: NonNegative = 0.7,
    ) -> None:
        super().__init__(backbone, optimizer)
        channels, length = backbone.sequence(data_info.length)
        if length <= timesteps:
            raise ConfigError(
                f"method.timesteps={timesteps}: of series of {data_info.length} steps {backbone.name} makes {length}, "
                f"and one must be left to predict from; wanted at most {length - 1}"
            )
        self.contrast = TemporalContrast(channels, timesteps, hidden, depth, heads, mlp, dropout)
        self.temperature = temperature
        self.temporal_weight = temporal_weight
        self.context_weight = context_weight

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone.forward_sequence(view) for view in batch.views]           # 2 x [B, D, L]
        z = [F.normalize(x, dim=1).transpose(1, 2) for x in h]                       # 2 x [B, L, D]
        weak, c = self._predicted(batch, z[0], z[1], "weak")                         # scalar, [B, D / 4]
        strong, d = self._predicted(batch, z[1], z[0], "strong")
        c, d = F.normalize(c, dim=1), F.normalize(d, dim=1)
        contexts = nt_xent(c, d, gather(c), gather(d), rank() * len(c), self.temperature)
        loss = self.temporal_weight * (weak + strong) + self.context_weight * contexts
        return {"loss": loss, "features": self.backbone.pooled(h[0]), "temporal": weak + strong, "contexts": contexts}

    def _predicted(self, batch: Batch, past: Tensor, future: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """How well the steps after a moment are predicted from those up to it, and the projected context of these."""
        timesteps = self.contrast.timesteps
        draw = batch.rng.host.shared(f"moment of the {name} view")
        moment = int(draw.integers("moment", past.shape[1] - timesteps))
        predictions, projected = self.contrast(past[:, : moment + 1])                # [B, K, D], [B, D / 4]
        steps = future[:, moment + 1 : moment + 1 + timesteps]                       # [B, K, D]
        return temporal_prediction(steps, gather(predictions), rank() * len(steps)), projected
