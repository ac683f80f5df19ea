"""InstDisc: every image is a class of its own, known by a remembered embedding."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather
from ssl_zoo.losses.nce import instance_softmax
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.bank_contrast import BankContrast, candidates
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.memory_bank import BankType, MemoryBank
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Share, Size


class InstDisc(Method):
    """InstDisc (NPID), Wu et al. 2018, https://arxiv.org/abs/1805.01978 (eq. 2-10), as zhirongw/lemniscate.pytorch.

    Their code has no proximal term (eq. 10); here it is 0 by default too. Their Z of NCE is that of the first batch,
    and the K terms of the negatives are summed.

    Args:
        projector: Linear in the authors' code.
        loss: ``nce`` (eq. 7), ``sampled`` (softmax over the drawn rows) or ``full`` (eq. 2, over all rows).
        temperature: > 0; 0.07 on ImageNet, 0.1 on CIFAR.
        negatives: Rows drawn for each sample, K; not used by ``full``.
        bank_momentum: Weight of the old row when a sample's row is written.
        bank_dtype: Of the bank: float32, float16 or bfloat16.
        proximal: Weight of the squared distance to the sample's own row (eq. 10); the paper's smoothing, else 0.
        evaluate_head: Evaluate the unit embeddings, as the authors' nearest neighbours; None: the encoder.
    """

    views_required = (1, 0)
    views_allowed = (None, 0)  # the mean over views; the authors have one
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        loss: Literal["nce", "sampled", "full"] = "nce",
        temperature: Positive = 0.07,
        negatives: Size = 4096,
        bank_momentum: Share = 0.5,
        bank_dtype: BankType = "float32",
        proximal: NonNegative = 0.0,
        evaluate_head: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.bank = MemoryBank(data_info.samples, self.projector.out_features, bank_momentum, bank_dtype)
        self.contrast = None if loss == "full" else BankContrast(loss, temperature, data_info.samples)
        self.samples = data_info.samples
        self.temperature = temperature
        self.negatives = negatives
        self.proximal = proximal
        self.evaluate_head = bool(evaluate_head)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = [self.backbone(view) for view in batch.views]                            # V x [B, F]
        z = [F.normalize(self.projector(x), dim=1) for x in h]                       # V x [B, D]
        losses = torch.stack([self.discriminate(x, batch) for x in z])               # [V]
        for x in z:
            self.bank.update(gather(batch.index), gather(x.detach()))  # staged: scored against the rows of before
        return {"loss": losses.mean(), "features": z[0] if self.evaluate_head else h[0]}

    def embed(self, view: Tensor) -> Tensor:
        h = self.encoder(view)
        return F.normalize(self.projector(h), dim=1) if self.evaluate_head else h

    def discriminate(self, z: Tensor, batch: Batch) -> Tensor:
        """Loss of the unit embeddings ``[B, D]`` of one view."""
        if self.contrast is None:
            loss = instance_softmax(z, self.bank.keys, batch.index, self.temperature)
        else:
            draw = batch.rng.sample("negatives")
            rows = candidates(batch.index, draw, self.samples, self.negatives)       # [B, 1 + K]
            loss = self.contrast(z, self.bank.keys, rows)
        if self.proximal:
            loss = loss + self.proximal * (z - self.bank.rows(batch.index)).square().sum(1).mean()
        return loss
