"""FastSiam: SimSiam whose target is the mean of the projections of several other views."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.regression import negative_cosine
from ssl_zoo.methods.simsiam import SimSiam


class FastSiam(SimSiam):
    """FastSiam, Pototzky et al. 2022, https://doi.org/10.1007/978-3-031-16788-1_4.

    There is no code of the authors; as ``fastsiam.py`` of lightly's examples: each of four views in turn predicts, and
    its target is the mean of the other projections, which are not normalised before. With two views it is SimSiam.
    Arguments as there.
    """

    views_required = (2, 0)
    views_allowed = (None, 0)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # V x [B, F]
        z = [self.projector(x) for x in h]                                           # V x [B, D]
        p = [self.predictor(x) for x in z]                                           # V x [B, D]
        t = torch.stack([x.detach() for x in z] if self.stop_gradient else z)        # [V, B, D]
        means = (t.sum(0) - t) / (len(t) - 1)                                        # [V, B, D] of the other views
        loss = torch.stack([negative_cosine(p[v], means[v]) for v in range(len(p))]).mean()
        return {"loss": loss, "features": h[0], "embeddings": z[0]}
