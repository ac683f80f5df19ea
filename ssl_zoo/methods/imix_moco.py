"""i-Mix on MoCo: a mixed query looks for the keys of both its images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.mixed_targets import n_pair
from ssl_zoo.methods.imix import turns
from ssl_zoo.methods.moco import MoCo
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.mixing import Mixer
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule
from ssl_zoo.ranges import Positive, Share, Size


class IMixMoCo(MoCo):
    """i-Mix on MoCo, as ``builder.py --method moco`` with ``--imix``, which the authors' code calls ``mocon``.

    The keys of the whole batch stand beside the queue, so that a mixed query finds its partner's; without mixing it is
    MoCo. The key encoder moves once a step, also if ``symmetric``, where the authors move it for each direction.

    Args:
        projector: Two layers, batch norm in the hidden one.
        mixer: What is mixed, and how.
        temperature, momentum, queue_size, symmetric: As in :class:`ssl_zoo.methods.moco.MoCo`.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        mixer: Mixer = Mixer(),  # noqa: B008  (frozen dataclass)
        temperature: Positive = 0.2,
        momentum: Share | Schedule = 0.999,
        queue_size: Size = 4096,
        symmetric: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer, data_info, projector, temperature, momentum, queue_size, symmetric)
        self.mixer = mixer
        self.compares = mixer.compares

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        batch = self.mixer.inputs(batch)
        if self.mixer.kind == "none":
            return super().training_loss(batch)
        losses, keys = [], []
        for query, key in turns(self.symmetric):
            mixed = self.mixer.mix(batch.views[query], batch.rng, f"mix{query}")     # [B, ...], 2 x [B, 2]
            q = nn.functional.normalize(self.projector(self.backbone(mixed.view)), dim=1)  # [B, D]
            draw = batch.rng.shared(f"shuffle{key}")
            k = gather(nn.functional.normalize(shuffled(self.teacher, batch.views[key], draw), dim=1))  # [W * B, D]
            contrast = torch.cat([k, self.queue.keys])                               # [W * B + K, D], no grad
            losses.append(n_pair(q, contrast, mixed.positives, self.temperature, mixed.weights))
            keys.append(k)
        self.queue.push(torch.cat(keys[::-1]))
        return {"loss": sum(losses[1:], losses[0])}  # no features: those of mixed images would mislead a probe
