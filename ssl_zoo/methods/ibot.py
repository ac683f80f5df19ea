"""iBOT: DINO between crops, and within a crop the teacher's view of the patches that the student does not see."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.apply import concat, joined
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.vision_transformer import require_class_token
from ssl_zoo.data.batch import Batch
from ssl_zoo.device import to_device
from ssl_zoo.losses.masked_distillation import masked_distillation, uniform_distillation
from ssl_zoo.losses.self_distillation import centred_softmax, self_distillation
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.batch_norm import sees
from ssl_zoo.modules.centre import Centre
from ssl_zoo.modules.ema import EMA, TAUGHT, TeacherEvaluated
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.masking.block import Masks, masked_patches
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.optim.schedules import Cosine, Schedule, value
from ssl_zoo.ranges import Count, NonNegative, Positive, Share


class IBOT(TeacherEvaluated, Method):
    """iBOT, Zhou et al. 2021, https://arxiv.org/abs/2111.07832 (algorithm 1, eq. 1-3).

    As ``main_ibot.py`` of bytedance/ibot@da316d8: class tokens are compared across crops as in DINO, patches within
    the same crop only; the student sees masked global crops and whole local ones, the teacher whole global crops; class
    tokens and patches have centres of their own, that of the patches over all of them, hidden or not; images of which
    nothing is hidden count in the patches' mean. The mask token is the student's alone.

    Args:
        projector: :class:`ssl_zoo.modules.token_head.TokenHead`; ``shared: true`` in the authors' runs.
        masks: Which patches are hidden: :class:`ssl_zoo.modules.masking.block.RatioMasks`.
        shared_teacher: The teacher's patches go through its class token's last layer even if the student's have one.
        temperature: Of the student, > 0.
        teacher_temperature, patch_temperature: Of the teacher's class tokens and patches, > 0; once an epoch.
        centre_momentum, patch_centre_momentum, class_weight, patch_weight: Of the two centres and of the two losses.
        mask_start: Epoch before which nothing is hidden, and from which ``patch_temperature`` counts (Swin: 50).
        momentum: Of the teacher; updated after the optimizer's step, from the new weights.
    """

    views_allowed = (2, None)
    needs_tokens = True
    begins = ("mask_start",)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        masks: Masks,
        shared_teacher: bool = True,
        temperature: Positive = 0.1,
        teacher_temperature: Positive | Schedule = 0.04,
        patch_temperature: Positive | Schedule = 0.07,
        centre_momentum: Share = 0.9,
        patch_centre_momentum: Share = 0.9,
        class_weight: NonNegative = 1.0,
        patch_weight: NonNegative = 1.0,
        mask_start: Count = 0,
        momentum: Share | Schedule = Cosine(0.996, 1.0),  # noqa: B008  (frozen dataclass)
    ) -> None:
        super().__init__(backbone, optimizer)
        require_class_token(backbone, "IBOT")
        self.projector = sees(projector(backbone.out_features), every=None)  # as many patches as are hidden
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.mask_features))  # two dimensions: decayed, as theirs
        self.shared_teacher = shared_teacher
        self.teacher = EMA(backbone)
        self.teacher_projector = EMA(self.taught_projector)
        head = cast(Any, self.teacher_projector.net)
        self.centre = Centre(head.out_features, centre_momentum)
        self.patch_centre = Centre(head.patch_features, patch_centre_momentum)
        self.masks, self.mask_start, self.momentum, self.temperature = masks, mask_start, momentum, temperature
        self.teacher_temperature, self.patch_temperature = teacher_temperature, patch_temperature
        self.class_weight, self.patch_weight = class_weight, patch_weight
        self.outputs = (head.out_features, head.patch_features)

    @property
    def taught_projector(self) -> nn.Module:
        """The part of the head that the teacher has too."""
        return self.projector.tied() if self.shared_teacher else self.projector

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        x, rows = batch.views[:TAUGHT], len(batch.views[0])                          # 2 x [B, C, H, W]
        with torch.no_grad():
            y, y_patch, grid = joined(self.encoder.forward_tokens, x)                # [2B, F], [2B, N, F]
            t = self.teacher_projector(y)                                            # [2B, K]
            t_patch = cast(Any, self.teacher_projector.net).patches(y_patch.flatten(0, 1))   # [2B * N, K]
        hidden = self.draw_masks(batch.rng, rows, grid)                              # [2B, N] on the host
        masks, index, counts = (to_device(m, y.device) for m in (hidden, *masked_patches(hidden)))   # [2B, N], [P], [P]
        h, h_patch, _ = joined(self.backbone.forward_tokens, x, mask=masks, mask_token=self.mask_token)
        h = torch.cat([h, *concat(self.backbone, batch.views[TAUGHT:])])             # [V * B, F]
        s = self.projector(h).split(rows)                                            # V x [B, K]
        s_patch = self.projector.patches(h_patch.flatten(0, 1)[index])               # [P, K]
        p = centred_softmax(t, self.centre.value, value(self.teacher_temperature, self.progress)).split(rows)
        sharpness = value(self.patch_temperature, self.progress.since(self.mask_start))
        p_patch = centred_softmax(t_patch[index], self.patch_centre.value, sharpness)        # [P, K]
        self.centre.update(t)        # staged: this batch was centred by those before it
        self.patch_centre.update(t_patch)
        between = self.class_weight * self_distillation(s, p, self.temperature)
        within = self.patch_weight * masked_distillation(s_patch, p_patch, counts, len(y), self.temperature)
        uniform = uniform_distillation(counts, len(y), self.outputs, (self.class_weight, self.patch_weight))
        parts = {"class": between, "patch": within, "uniform_loss": uniform}
        return {"loss": between + within, "features": y[:rows], **parts}

    def draw_masks(self, rng: BatchRNG, rows: int, grid: tuple[int, int]) -> Tensor:
        """``[2B, N]`` bool, crop by crop: the patches of the global crops that the student does not see."""
        return self.masks(rng, TAUGHT, rows, grid) & (self.progress.epoch >= self.mask_start)

    def after_step(self) -> None:
        momentum = value(self.momentum, self.progress)
        self.teacher.update(self.backbone, momentum)
        self.teacher_projector.update(self.taught_projector, momentum)
