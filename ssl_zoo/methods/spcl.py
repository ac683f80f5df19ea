"""SpCL: a memory of classes, clusters and instances, relabelled at every epoch by what can be trusted."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import broadcast_object, gather, is_main, mean_of_chosen
from ssl_zoo.losses.hybrid import hybrid_memory
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.batch_norm import sees
from ssl_zoo.modules.domains import Domains
from ssl_zoo.modules.dual_norm import DualNorm
from ssl_zoo.modules.heads import NORMS
from ssl_zoo.modules.hybrid_memory import HybridMemory
from ssl_zoo.modules.pseudo_labels import SelfPaced
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Share, Size


class SpCL(Method):
    """SpCL, Ge et al. 2020, https://arxiv.org/abs/2006.02713 (eq. 2-6), as examples/spcl_train_usl.py of yxgeee/SpCL.

    Without labels by default. ``source``: labelled samples are a source domain, whose class centroids share the memory
    with the instances of the target domain, the samples without a label (``spcl_train_uda.py``). Every batch is half
    source, half target, each read by its own groups; the authors' 64 + 64 are ``data.batch_size=128``. Each domain has
    batch norms of its own (weights and statistics, equal at the start), which see half of a ``batch_norm.group``.
    The network holds the target's: they alone serve evaluation, export and, as in the authors' code, the first rows of
    the memory for both domains, when the source's, kept in ``source_norms``, are still equal to them.

    The features are those behind a batch norm without offset, at length 1, also in evaluation. An epoch reads as many
    samples as the set has, half of each domain: the smaller one's come more often. The authors' reads 400 batches.

    Args:
        temperature: > 0.
        memory_momentum: Weight of the *old* row of the memory, in [0, 1].
        eps, eps_gap: Radius of DBSCAN, and how much smaller and larger those of the criteria are.
        min_samples, k1, k2: Of a dense place; neighbours of the k-reciprocal distance and of its average.
        instances: Samples of one pseudo label that follow one another in the order; None: any order.
        source: Whether labelled samples are a source domain.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    rows_of_samples = True
    limit: Tensor

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        temperature: Positive = 0.05,
        memory_momentum: Share = 0.2,
        eps: Positive = 0.6,
        eps_gap: NonNegative = 0.02,
        min_samples: Size = 4,
        k1: Size = 30,
        k2: Size = 6,
        instances: Size | None = 4,
        source: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        if source and data_info.classes is None:
            raise ValueError("method.source=true needs a labelled source domain and this data has no labels")
        self.neck: Any = NORMS["batch_no_offset"](backbone.out_features)
        self.source_norms = DualNorm(sees(self.network, every=2)) if source else None
        self.domains = Domains((data_info.classes or 0) if source else 0)
        self.memory = HybridMemory(self.domains.classes + data_info.samples, backbone.out_features, memory_momentum)
        self.register_buffer("limit", torch.tensor(-1.0, dtype=torch.float64))  # of independence; -1: not yet known
        self.pseudo_labels = SelfPaced(eps, eps_gap, min_samples, k1, k2)
        self.temperature, self.instances = temperature, instances

    @property
    def network(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.neck)

    def embed(self, view: Any) -> Tensor:
        return F.normalize(self.network(view), dim=1)                                        # [B, F]

    def embed_domains(self, view: Any, known: Tensor) -> Tensor:
        norms = self.source_norms
        return self.embed(view) if norms is None else F.normalize(norms.divided(self.network, view, known), dim=1)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        known = self.domains.source(batch.label, batch.index)                                # [B] bool
        row = self.domains.rows(batch.label, batch.index)                                    # [B] in the memory
        z = self.embed_domains(batch.views[0], known)                                        # [B, F]
        memory, labels = self.memory, self.memory.labels
        losses = hybrid_memory(z, memory.features, labels, labels[row], len(labels), self.temperature)
        loss = mean_of_chosen(losses, ~known) + mean_of_chosen(losses, known)
        memory.update(gather(row), gather(z))
        return {"loss": loss, "features": z}

    def on_fit_start(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.domains.check(data.train_labels)
        if groups := self.domains.groups(data.train_labels, self.memory.labels, self.instances):
            data.check_group(*groups)

    def on_train_epoch_start(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.current_epoch == 0:
            self.memory.fill(self.extract(self.network), data.train_labels)
        self.relabel(self.domains.source(data.train_labels, torch.arange(data.info.samples)))
        if groups := self.domains.groups(data.train_labels, self.memory.labels, self.instances):
            data.group(*groups)

    @torch.no_grad()
    def relabel(self, known: Tensor) -> None:
        """Pseudo labels of the target's rows from the memory; found by one process, told to the others."""
        rows = self.memory.features[self.domains.classes :][~known.to(self.device)]          # [T, F]
        labels, limit = broadcast_object(self.pseudo_labels(rows, float(self.limit)) if is_main() else None)
        self.memory.relabel(labels, known)
        self.limit.fill_(limit)
