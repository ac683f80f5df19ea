"""DINOv2: DINO between crops, iBOT within them, and features spread evenly, at scale."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, joined
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.vision_transformer import require_class_token
from ssl_zoo.data.batch import Batch
from ssl_zoo.device import to_device
from ssl_zoo.distributed import gather
from ssl_zoo.losses.koleo import koleo
from ssl_zoo.losses.masked_distillation import crop_distillation, masked_distillation, uniform_distillation
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.batch_norm import sees
from ssl_zoo.modules.ema import EMA, TAUGHT, TeacherEvaluated
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.masking.block import Masks, masked_patches
from ssl_zoo.modules.targets import Targets
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import NonNegative, Positive, Share, Size


class DINOv2(TeacherEvaluated, Method):
    """DINOv2, Oquab et al. 2023, https://arxiv.org/abs/2304.07193 (Sec. 4).

    As ``SSLMetaArch.forward_backward`` of facebookresearch/dinov2@b8931f7: the mean over all pairs of a target and
    another crop, hidden patches over all ``2B`` crops, and the sum of KoLeo over the two crops, before the head. The
    teacher's heads see only the patches that are hidden; its targets are balanced by Sinkhorn-Knopp over the global
    batch, whose epsilon is the teacher's temperature, or centred as in DINO (patches by all processes' hidden ones).

    Args:
        projector: :class:`ssl_zoo.modules.dino_head.DINOHead`.
        masks: Which patches are hidden: :class:`ssl_zoo.modules.masking.block.StratifiedMasks`.
        patch_projector: The patches' own head; None: they share ``projector``.
        centring: ``sinkhorn`` or ``centre``.
        temperature, teacher_temperature: Of the student, and of the teacher, raised step by step.
        iterations: Of Sinkhorn-Knopp, at least 1.
        centre_momentum: In [0, 1).
        class_weight, patch_weight, koleo_weight: Of the losses.
        scope: Among whose features KoLeo looks for the nearest: ``global``, or ``rank``, as the authors' processes do.
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
    """

    views_allowed = (2, None)
    needs_tokens = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        masks: Masks,
        patch_projector: Head | None = None,
        centring: Literal["sinkhorn", "centre"] = "sinkhorn",
        temperature: Positive = 0.1,
        teacher_temperature: Positive | Schedule = 0.07,
        iterations: Size = 3,
        centre_momentum: Share = 0.9,
        class_weight: NonNegative = 1.0,
        patch_weight: NonNegative = 1.0,
        koleo_weight: NonNegative = 0.1,
        scope: Literal["global", "rank"] = "global",
        momentum: Share | Schedule = Cosine(0.992, 1.0),  # noqa: B008  (frozen dataclass)
    ) -> None:
        super().__init__(backbone, optimizer)
        require_class_token(backbone, "DINOv2")
        self.projector = sees(projector(backbone.out_features), every=None)  # as many patches as are hidden
        self.patch_projector = own = patch_projector and sees(patch_projector(backbone.out_features), every=None)
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.mask_features))  # two dimensions: decayed, as theirs
        self.teacher = EMA(backbone)
        self.teacher_projector = EMA(self.projector)
        self.teacher_patch_projector = None if own is None else EMA(own)
        self.outputs = [head.out_features for head in (self.projector, own or self.projector)]
        self.targets = Targets(self.outputs, centring, iterations, centre_momentum)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.class_weight, self.patch_weight, self.koleo_weight = class_weight, patch_weight, koleo_weight
        self.masks, self.scope, self.momentum = masks, scope, momentum
        self.compares = "batch" if scope == "global" else "process"

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        x, rows = batch.views[:TAUGHT], len(batch.views[0])                          # 2 x [B, C, H, W]
        with torch.no_grad():
            y, y_patch, grid = joined(self.encoder.forward_tokens, x)                # [2B, F], [2B, N, F]
        hidden = self.masks(batch.rng, TAUGHT, rows, grid)                           # [2B, N] on the host
        masks, index, counts = (to_device(m, y.device) for m in (hidden, *masked_patches(hidden)))   # [2B, N], [P], [P]
        y_patch = y_patch.flatten(0, 1)[index]                                       # [P, F]
        sharpness = value(self.teacher_temperature, self.progress)
        p = self.targets(self.teacher_projector(y), 0, sharpness).split(rows)        # 2 x [B, K]
        t_patch = (self.teacher_patch_projector or self.teacher_projector)(y_patch)  # [P, K]
        p_patch = self.targets(t_patch, 1, sharpness)                                # [P, K]

        h, h_patch, _ = joined(self.backbone.forward_tokens, x, mask=masks, mask_token=self.mask_token)
        local = concat(self.backbone, batch.views[TAUGHT:])                          # L x [B, F]
        s = self.projector(torch.cat([h, *local])).split(rows)                       # (2 + L) x [B, K]
        s_patch = (self.patch_projector or self.projector)(h_patch.flatten(0, 1)[index])   # [P, K]

        between = crop_distillation(s, p, self.temperature)                          # global, local
        loss = self.class_weight * torch.stack(list(between.values())).sum()
        among = gather if self.scope == "global" else lambda crop: crop
        spread = torch.stack([koleo(among(crop)) for crop in h.split(rows)]).sum()
        within = masked_distillation(s_patch, p_patch, counts, len(y), self.temperature)
        loss = loss + self.koleo_weight * spread + self.patch_weight * within
        pairs = self.class_weight * (1 if local else 2 / 3)                          # two, and the authors' divisor
        uniform = uniform_distillation(counts, len(y), self.outputs, (pairs, self.patch_weight))
        parts = {**between, "koleo": spread, "patch": within, "uniform_loss": uniform + self.koleo_weight * spread}
        return {"loss": loss, "features": y[:rows], **parts}

    def after_step(self) -> None:
        momentum = value(self.momentum, self.progress)
        self.teacher.update(self.backbone, momentum)
        self.teacher_projector.update(self.projector, momentum)
        if self.teacher_patch_projector is not None and self.patch_projector is not None:
            self.teacher_patch_projector.update(self.patch_projector, momentum)
