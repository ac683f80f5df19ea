"""CMC: what one half of the channels shows predicts which sample the other half belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.towers import Towers
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather
from ssl_zoo.errors import require
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.bank_contrast import BankContrast, Contrast, candidates
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.memory_bank import BankType, MemoryBank
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Share, Size

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
    require("graph", graph, get_args(Graph))
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

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (1, 0)
    rows_of_samples = True
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
        temperature: Positive = 0.07,
        negatives: Size = 16384,
        bank_momentum: Share = 0.5,
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
