"""SpCL: a memory of classes, clusters and instances, relabelled at every epoch by what can be trusted."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import broadcast_object, gather, is_main, sum_over_ranks, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.hybrid import hybrid_memory
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import NORMS
from ssl_zoo.modules.hybrid_memory import HybridMemory
from ssl_zoo.modules.pseudo_labels import self_paced
from ssl_zoo.modules.rerank import jaccard_distance
from ssl_zoo.optim.recipe import OptimizerRecipe


class SpCL(Method):
    """SpCL, Ge et al. 2020, https://arxiv.org/abs/2006.02713 (eq. 2-6), as examples/spcl_train_usl.py of yxgeee/SpCL.

    Without labels by default. ``source``: labelled samples are a source domain, whose class centroids share the memory
    with the instances of the target domain, the samples without a label (``spcl_train_uda.py``; both domains share
    their batch norms here, where the authors give each its own, and a batch holds both as the order has it).

    The features are those behind a batch norm without offset, at length 1, also in evaluation. An epoch reads as many
    samples as the set has; the authors' reads 400 batches.

    Args:
        temperature: > 0.
        memory_momentum: Weight of the *old* row of the memory, in [0, 1].
        eps, eps_gap: Radius of DBSCAN, and how much smaller and larger those of the criteria are.
        min_samples: Of a dense place.
        k1, k2: Of the k-reciprocal distance.
        instances: Samples of one pseudo label that follow one another in the order; None: any order.
        source: Whether labelled samples are a source domain.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    limit: Tensor

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        temperature: float = 0.05,
        memory_momentum: float = 0.2,
        eps: float = 0.6,
        eps_gap: float = 0.02,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        instances: int | None = 4,
        source: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        if source and data_info.classes is None:
            raise ValueError("method.source=true needs a labelled source domain and this data has no labels")
        self.neck: Any = NORMS["batch_no_offset"](backbone.out_features)
        self.classes = (data_info.classes or 0) if source else 0
        self.memory = HybridMemory(self.classes + data_info.samples, backbone.out_features, memory_momentum)
        self.register_buffer("limit", torch.tensor(-1.0, dtype=torch.float64))  # of independence; -1: not yet known
        self.temperature = temperature
        self.eps, self.eps_gap, self.min_samples, self.k1, self.k2 = eps, eps_gap, min_samples, k1, k2
        self.instances = instances

    def embed(self, view: Any) -> Tensor:
        return F.normalize(self.neck(self.backbone(view)), dim=1)                            # [B, F]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        z = self.embed(batch.views[0])                                                       # [B, F]
        known = self.from_source(batch.label, batch.index)                                   # [B] bool
        label = torch.zeros_like(batch.index) if batch.label is None else batch.label
        row = torch.where(known, label, self.classes + batch.index)                          # [B] in the memory
        memory, classes = self.memory, len(self.memory.labels)
        losses = hybrid_memory(z, memory.features, memory.labels, memory.labels[row], classes, self.temperature)
        domains = [~known, known] if self.classes else [~known]
        loss = torch.stack([_mean(losses, domain) for domain in domains]).sum()
        memory.update(gather(row), gather(z))
        return {"loss": loss, "features": z}

    def from_source(self, label: Tensor | None, index: Tensor) -> Tensor:
        """Whether a sample belongs to the source domain: ``[N]`` bool."""
        return torch.zeros_like(index, dtype=torch.bool) if label is None or not self.classes else label >= 0

    def on_fit_start(self) -> None:
        known = self.known()
        if self.classes and (bool(known.all()) or not bool(known.any())):
            found = "all" if known.any() else "none"
            raise ConfigError(
                f"method.source=true: {found} of the {len(known)} training samples have a label; wanted a labelled "
                "source domain and a target domain whose labels are -1, or method.source=false"
            )

    def known(self) -> Tensor:
        """Which training samples belong to the source: ``[samples]`` bool, on the CPU."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.from_source(data.train_labels, torch.arange(data.info.samples))

    def on_train_epoch_start(self) -> None:
        data, known = self.trainer.datamodule, self.known()  # type: ignore[attr-defined]
        if self.trainer.current_epoch == 0:
            features = self.extract(nn.Sequential(self.backbone, self.neck))
            self.memory.fill(features, data.train_labels if self.classes else None)
        self.relabel(known)
        if self.instances is not None:
            own = self.memory.labels[self.classes :].cpu()
            data.group(torch.where(known, data.train_labels, own) if self.classes else own, self.instances)

    @torch.no_grad()
    def relabel(self, known: Tensor) -> None:
        """Pseudo labels of the target's rows from the memory; found by one process, told to the others."""
        rows = self.memory.features[self.classes :][~known.to(self.device)]                  # [T, F]
        found, limit = broadcast_object(self.pseudo_labels(rows) if is_main() else None)
        labels = torch.full((len(known),), -1)  # instances of the source take no part
        labels[~known] = self.classes + torch.from_numpy(found).unique(return_inverse=True)[1]
        self.memory.labels.copy_(torch.cat([torch.arange(self.classes), labels]))
        self.limit.fill_(-1.0 if limit is None else limit)

    def pseudo_labels(self, rows: Tensor) -> tuple[Any, float | None]:
        limit = float(self.limit)
        distance = jaccard_distance(rows, self.k1, self.k2)
        return self_paced(distance, self.eps, self.eps_gap, self.min_samples, None if limit < 0 else limit)[:2]


def _mean(losses: Tensor, domain: Tensor) -> Tensor:
    """Of a domain's samples in the global batch, as this process's share of it."""
    count = sum_over_ranks(domain.sum().to(losses.dtype)).clamp_min(1)
    return (losses * domain).sum() * world_size() / count
