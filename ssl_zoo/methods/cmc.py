"""CMC: what one half of the channels shows predicts which sample the other half belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.towers import Towers
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.errors import nearest
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.bank_contrast import BankContrast, Contrast, candidates
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.memory_bank import BankType, MemoryBank
from ssl_zoo.modules.queue import Queue
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Schedule, value

Graph = Literal["core", "full"]


class Projectors(nn.Module):
    """One head for each tower: features side by side ``[B, V * F]`` to unit embeddings ``[B, V, D]``."""

    def __init__(self, projector: Head, towers: Towers) -> None:
        super().__init__()
        self.heads = nn.ModuleList(projector(towers.width) for _ in towers.channels)
        self.out_features: int = self.heads[0].out_features  # type: ignore[assignment]

    def forward(self, h: Tensor) -> Tensor:
        parts = zip(self.heads, h.chunk(len(self.heads), dim=1), strict=True)
        return F.normalize(torch.stack([head(x) for head, x in parts], dim=1), dim=2)


def directions(views: int, graph: Graph) -> list[tuple[int, int]]:
    """(view of the query, view of the keys) of all terms: both ways along the edges of the graph (Sec. 3.2)."""
    if graph not in ("core", "full"):
        raise ValueError(f"graph={graph}: {nearest(graph, ('core', 'full'))}")
    edges = [(i, j) for i in range(views) for j in range(i + 1, views) if graph == "full" or i == 0]
    return [*edges, *((j, i) for i, j in edges)]


class CMC(Method):
    """CMC, Tian et al. 2019, https://arxiv.org/abs/1906.05849 (eq. 3-9), as HobbitLong/CMC@7b227be.

    The embedding of each view is scored against the memory bank of another, the terms are added (not averaged), and
    every direction has its own Z. The encoder that is evaluated is all towers side by side.

    Args:
        channels: For each view the channels that make it: L and ab by default. Other sensors are further channels.
        projector: One for each view; linear in the authors' code.
        graph: With more than two views: ``core`` pairs the first with each other one, ``full`` all of them.
        loss: ``nce`` (default of the authors' code) or ``sampled`` (their ``--softmax``).
        temperature: > 0.
        negatives: Rows drawn for each sample, K; the same for all views.
        bank_momentum: Weight of the old row when a sample's row is written.
        bank_dtype: Of the banks: float32, float16 or bfloat16.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    backbone: Towers

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        channels: Sequence[Sequence[int]],
        projector: Head,
        graph: Graph = "full",
        loss: Contrast = "nce",
        temperature: float = 0.07,
        negatives: int = 16384,
        bank_momentum: float = 0.5,
        bank_dtype: BankType = "float32",
    ) -> None:
        super().__init__(Towers(backbone, channels), optimizer)
        self.projectors = Projectors(projector, self.backbone)
        self.directions = directions(len(channels), graph)
        n, dim = data_info.samples, self.projectors.out_features
        self.banks = nn.ModuleList(MemoryBank(n, dim, bank_momentum, bank_dtype, seed=i) for i in range(len(channels)))
        self.contrasts = nn.ModuleList(BankContrast(loss, temperature, n) for _ in self.directions)
        self.samples = n
        self.negatives = negatives

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = self.backbone(batch.views[0])                                            # [B, V * F]
        z = self.projectors(h)                                                       # [B, V, D]
        draw = batch.rng.sample("negatives")
        rows = candidates(batch.index, draw, self.samples, self.negatives)           # [B, 1 + K]
        terms = {
            f"view{i}_to_view{j}": contrast(z[:, i], self.banks[j].keys, rows)
            for (i, j), contrast in zip(self.directions, self.contrasts, strict=True)
        }
        index, new = gather(batch.index), gather(z.detach())                         # [W * B], [W * B, V, D]
        for i, bank in enumerate(self.banks):
            cast(MemoryBank, bank).update(index, new[:, i])
        return {"loss": torch.stack(list(terms.values())).sum(), "features": h, **terms}


class CMCv2(Method):
    """CMCv2 of HobbitLong/PyContrast@84f94ea: CMC with a moving average of the towers and a queue of keys per view.

    Queries of one crop are contrasted with keys of the *other* view of another crop. The average is taken after the
    optimizer step, and keys are queued in the shuffled order, both as in the authors' code.

    Args:
        channels, graph: As in :class:`CMC`.
        projector: One for each view; two layers without batch norm in the authors' code.
        temperature: > 0.
        momentum: Of the key towers, in [0, 1].
        queue_size: Keys held for each view.
    """

    views_required = (2, 0)
    backbone: Towers

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        channels: Sequence[Sequence[int]],
        projector: Head,
        graph: Graph = "full",
        temperature: float = 0.2,
        momentum: float | Schedule = 0.999,
        queue_size: int = 65536,
    ) -> None:
        super().__init__(Towers(backbone, channels), optimizer)
        self.projectors = Projectors(projector, self.backbone)
        self.directions = directions(len(channels), graph)
        self.teacher = EMA(nn.Sequential(self.backbone, self.projectors))
        dim, rows = self.projectors.out_features, data_info.batch_size
        self.queues = nn.ModuleList(Queue(queue_size, dim, rows) for _ in channels)
        self.temperature = temperature
        self.momentum = momentum

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        query_view, key_view = batch.views
        h = self.backbone(query_view)                                                # [B, V * F]
        q = self.projectors(h)                                                       # [B, V, D]
        draw = batch.rng.shared("shuffle")
        k = shuffled(self.teacher, key_view, draw)                                   # [B, V, D], no grad
        queued = [cast(Queue, queue).keys for queue in self.queues]                  # V x [K, D]
        terms = {
            f"view{i}_to_view{j}": info_nce(q[:, i], k[:, j], queued[j], self.temperature) for i, j in self.directions
        }
        keys = gather(k)                                                             # [W * B, V, D]
        keys = keys[draw.permutation(len(keys)).to(keys.device)]
        for i, queue in enumerate(self.queues):
            cast(Queue, queue).push(keys[:, i])
        return {"loss": torch.stack(list(terms.values())).sum(), "features": h, **terms}

    def after_step(self) -> None:
        self.teacher.update(nn.Sequential(self.backbone, self.projectors), value(self.momentum, self.progress))
