"""i-Mix: inputs are mixed, and so are the identities that the loss asks for; three methods that it improves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.losses.mixed_targets import mixed_regression, n_pair
from ssl_zoo.methods.base import Method
from ssl_zoo.methods.moco import MoCo
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.modules.mixing import Mixer
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value


def turns(symmetric: bool) -> list[tuple[int, int]]:
    """(query view, key view) of each direction."""
    return [(0, 1), (1, 0)] if symmetric else [(0, 1)]


class IMixNPair(Method):
    """i-Mix on N-pair contrast, Lee et al. 2020, https://arxiv.org/abs/2010.08887, as ``builder.py --method npair``.

    Only queries are mixed. Queries and keys go through one encoder together, both learn, and only queries look for
    keys, not keys for queries.

    Args:
        projector: Two layers, batch norm after both.
        mixer: What is mixed, and how.
        temperature: > 0.
        symmetric: Each view is query and key in turn and both losses are added (``--sym``).
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        mixer: Mixer = Mixer(),  # noqa: B008  (frozen dataclass)
        temperature: float = 0.2,
        symmetric: bool = False,
        grad_cache: int = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.mixer = mixer
        self.temperature = temperature
        self.symmetric = symmetric
        self.grad_cache = grad_cache

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = torch.cat(concat(self.backbone, views))                                  # [2B, F]
        z = nn.functional.normalize(self.projector(h), dim=1)                        # [2B, D]
        return h.chunk(2)[1], *z.chunk(2)                                            # [B, F], 2 x [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        batch = self.mixer.inputs(batch)
        losses, features = [], []
        for query, key in turns(self.symmetric):
            mixed = self.mixer.mix(batch.views[query], batch.rng, f"mix{query}")     # [B, ...], 2 x [B, 2]
            h, q, k = in_chunks(self, self.encode, [mixed.view, batch.views[key]], self.grad_cache)
            losses.append(n_pair(q, gather(k), mixed.positives, self.temperature, mixed.weights))
            features.append(h)
        return {"loss": sum(losses[1:], losses[0]), "features": features[0]}


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
        temperature: float = 0.2,
        momentum: float | Schedule = 0.999,
        queue_size: int = 4096,
        symmetric: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer, data_info, projector, temperature, momentum, queue_size, symmetric)
        self.mixer = mixer

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


class IMixBYOL(Method):
    """i-Mix on BYOL, as ``builder.py --method byol``: one direction, and the teacher moves before its forward pass.

    Args:
        projector, predictor: Two layers, batch norm in the hidden one.
        mixer: What is mixed, and how.
        momentum: Of the teacher, in [0, 1].
        symmetric: Each view is query and key in turn and both losses are added (``--sym``).
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        predictor: Head,
        mixer: Mixer = Mixer(),  # noqa: B008  (frozen dataclass)
        momentum: float | Schedule = 0.999,
        symmetric: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.predictor = predictor(self.projector.out_features)
        same_width(self.projector, self.predictor)
        self.teacher = EMA(nn.Sequential(backbone, self.projector))
        self.mixer = mixer
        self.momentum = momentum
        self.symmetric = symmetric

    def before_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.projector), value(self.momentum, self.progress))

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
