"""NAT: every image is mapped to a point of noise of its own; images exchange their points where that suits both."""

from __future__ import annotations

from typing import get_args

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather
from ssl_zoo.errors import require
from ssl_zoo.losses.regression import summed_squares
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import dropout as dropped
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.noise_targets import NoiseTargets, Scope, exchanged
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Rate, Size


class NoiseAsTargets(Method):
    """NAT, Bojanowski & Joulin 2017, https://arxiv.org/abs/1704.05310 (eq. 3, algorithm 1).

    As main.lua of facebookresearch/noise-as-targets@e5c58ab: in every third epoch the targets of a batch are exchanged
    among its samples before the loss. The authors' runs have one process; of several, all samples of the global batch
    exchange. The loss is a sum over the batch: with ``trainer.accumulate`` it is that of a micro-batch. The Sobel
    filter is the last operation of the views.

    Args:
        projector: The three layers of AlexNet's classifier, with batch norm.
        period: Epochs from one in which targets are exchanged to the next; epoch 0 is the first.
        dropout: In front of the second layer of the projector, as in the authors' network.
        scope: ``global``, or ``rank``: each process exchanges among its own samples, and results depend on how many.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        period: Size = 3,
        dropout: Rate = 0.5,
        scope: Scope = "global",
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.scope", scope, get_args(Scope))
        self.projector = projector(backbone.out_features)
        self.noise = NoiseTargets(data_info.samples, self.projector.out_features)
        layers = [i for i, layer in enumerate(self.projector) if isinstance(layer, nn.Linear)]
        self.second = layers[1] if len(layers) > 1 else None
        self.period, self.dropout, self.scope = period, dropout, scope

    def project(self, h: Tensor, draw: Draw) -> Tensor:
        """``[B, F]`` to unit rows ``[B, D]``."""
        for i, layer in enumerate(self.projector):
            h = layer(dropped(h, self.dropout, draw) if i == self.second else h)
        return F.normalize(h, dim=1)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, F]
        z = self.project(h, batch.rng.sample("dropout"))                             # [B, D]
        z, index = gather(z), gather(batch.index)                                    # [W * B, D], [W * B]
        held = self.noise.of(index)                                                  # [W * B]
        if self.progress.epoch % self.period:
            return {"loss": summed_squares(z, self.noise.targets[held]), "features": h}
        target = exchanged(z, self.noise, index, self.scope)                         # [W * B], a permutation of held
        self.noise.stage_exchange(index, target)
        loss = summed_squares(z, self.noise.targets[target])
        return {"loss": loss, "features": h, "exchanged": (target != held).double().mean()}
