"""CRD: a student whose embedding of a sample is found by the teacher's, among those of other classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, mean_of_chosen
from ssl_zoo.losses.distillation import softened_kl
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.bank_contrast import BankContrast
from ssl_zoo.modules.class_sampler import ClassSampler, Pairing
from ssl_zoo.modules.memory_bank import BankType, MemoryBank
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Share, Size
from ssl_zoo.teachers import load_teacher


class CRD(Method):
    """Contrastive representation distillation, Tian et al. 2019, https://arxiv.org/abs/1910.10699 (eq. 17-19).

    As HobbitLong/RepDistiller@b84f547 (``crd/criterion.py``): the student's embedding is scored against the bank of the
    teacher's and the other way round, both embeddings are trained, and the losses are added. Total: ``ce`` times the
    cross-entropy plus ``kd`` times the softened KL plus ``crd`` times the contrast.

    Args:
        teacher: ``{checkpoint: RUN}`` or ``{timm: NAME, pretrained: bool}``, see :func:`ssl_zoo.teachers.load_teacher`.
        embedding: Width of both embeddings.
        temperature: > 0; of the contrast.
        negatives: Rows of other classes drawn for each sample, K.
        bank_momentum: Weight of the old row when a sample's row is written.
        bank_dtype: Of the banks: float32, float16 or bfloat16.
        positive: ``exact``: a sample's own row; ``relax``: that of a sample of its class.
        distinct: A sample's negatives are all different.
        ce, kd, crd: Weights.
        kd_temperature: Of ``kd``.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    needs_labels = True
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        teacher: Mapping[str, Any],
        embedding: Size = 128,
        temperature: Positive = 0.07,
        negatives: Size = 16384,
        bank_momentum: Share = 0.5,
        bank_dtype: BankType = "float32",
        positive: Pairing = "exact",
        distinct: bool = True,
        ce: NonNegative = 1.0,
        kd: NonNegative = 0.0,
        crd: NonNegative = 0.8,
        kd_temperature: Positive = 4.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        if data_info.classes is None:
            raise ValueError("method=crd needs labels and the data has none; choose a labelled data set")
        self.teacher = load_teacher(teacher, data_info)
        if kd and self.teacher.classifier is None:
            raise ValueError(f"method.kd={kd} needs logits and the teacher has no classifier; set method.kd=0, or take "
                             "a teacher of method=supervised")
        self.classifier = nn.Linear(backbone.out_features, data_info.classes)
        self.embed_student = nn.Linear(backbone.out_features, embedding)
        self.embed_teacher = nn.Linear(self.teacher.out_features, embedding)
        n = data_info.samples
        self.bank_student = MemoryBank(n, embedding, bank_momentum, bank_dtype, seed=0)
        self.bank_teacher = MemoryBank(n, embedding, bank_momentum, bank_dtype, seed=1)
        self.contrast_student = BankContrast("nce", temperature, n)
        self.contrast_teacher = BankContrast("nce", temperature, n)
        self.sampler = ClassSampler(n, negatives, positive, distinct)
        self.weights = {"ce": ce, "kd": kd, "crd": crd}
        self.kd_temperature = kd_temperature

    def on_fit_start(self) -> None:
        self.sampler.learn(self.trainer.datamodule.train_labels)  # type: ignore[attr-defined]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        h = self.backbone(batch.views[0])                                            # [B, F]
        t, t_logits = self.teacher(batch.views[0])                                   # [B, F_t], [B, C], no grad
        logits = self.classifier(h)                                                  # [B, C]
        s = F.normalize(self.embed_student(h), dim=1)                                # [B, D]
        r = F.normalize(self.embed_teacher(t), dim=1)                                # [B, D]
        rows = self.sampler(batch.index, batch.rng.sample("contrast"))               # [B, 1 + K]
        of_student = self.contrast_student(s, self.bank_teacher.keys, rows)
        of_teacher = self.contrast_teacher(r, self.bank_student.keys, rows)
        index = gather(batch.index)
        self.bank_student.update(index, gather(s.detach()))
        self.bank_teacher.update(index, gather(r.detach()))
        ce = mean_of_chosen(cross_entropy_rows(logits, batch.label), batch.label != -1)
        terms = {"ce": ce, "crd": of_student + of_teacher}
        if t_logits is not None:
            terms["kd"] = softened_kl(logits, t_logits, self.kd_temperature)
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": loss, "features": h, **terms}
