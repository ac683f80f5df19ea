"""LoCo: SimCLR trained locally, by overlapping units of the network with a loss each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.local_units import train_locally
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.passes import laid_out
from ssl_zoo.ranges import Count, Positive
from ssl_zoo.sides import height_width


class LoCo(Method):
    """LoCo, Xiong, Ren, Urtasun 2020, https://arxiv.org/abs/2008.01342 (Sec. 3): local units that share a stage.

    Unit ``u`` is the stages ``u .. u + overlap`` with a head of its own; no gradient leaves it downwards, and the loss
    is the sum over units (weight 1 each). A stage inside the network so learns from several losses, and the activations
    of ``overlap + 1`` stages are kept at a time. No code of the authors is public.

    Args:
        projector: Of each unit, on the mean of its map over the image.
        overlap: Stages that neighbouring units share: 1 is LoCo, 0 Greedy InfoMax (https://arxiv.org/abs/1905.11786),
            one less than there are stages end-to-end SimCLR.
        temperature: > 0.

    Raises:
        ConfigError: If the backbone is no chain of stages.
        ValueError: If it has fewer stages than a unit needs.
    """

    tensor_views = True
    compares = "batch"
    unsplittable = "takes the gradients of its units inside of its step, behind which FSDP takes the parameters apart"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        overlap: Count = 1,
        temperature: Positive = 0.1,
    ) -> None:
        super().__init__(backbone, optimizer)
        widths = stage_widths(backbone, data_info)
        if not 0 <= overlap < len(widths):
            raise ValueError(f"method.overlap={overlap}: the backbone has {len(widths)} stages; "
                             f"wanted 0 to {len(widths) - 1}")
        self.projectors = nn.ModuleList(projector(width) for width in widths[overlap:])
        self.overlap = overlap
        self.temperature = temperature
        local = {p for stage in backbone.stages() for p in stage.parameters()}
        for p in backbone.parameters():
            p.requires_grad_(p.requires_grad and p in local)  # a norm behind the pooling (ConvNeXt) gets no loss

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        stages = self.backbone.stages()
        both = [torch.cat(batch.views)]                                              # [2B, C, H, W], as SimCLR's
        with laid_out(views=len(batch.views)):
            out = train_locally(stages, list(self.projectors), both, self.unit_loss, depth=self.overlap + 1)
        losses = {f"unit{u}": loss for u, loss in enumerate(out.losses, start=1)}
        return {"loss": out.loss, "features": pooled(out.maps[0]).chunk(2)[0], **losses}

    def unit_loss(self, projector: nn.Module, maps: Sequence[Tensor]) -> Tensor:
        z = nn.functional.normalize(projector(pooled(maps[0])), dim=1).chunk(2)      # 2 x [B, D]
        keys = [gather(x) for x in z]                                                # 2 x [W * B, D]
        return nt_xent(z[0], z[1], keys[0], keys[1], rank() * len(z[0]), self.temperature)


def pooled(x: Tensor) -> Tensor:
    """``[B, C, h, w]`` -> ``[B, C]``."""
    return x.mean((2, 3))


@torch.no_grad()
def stage_widths(backbone: Backbone, data_info: DataInfo) -> list[int]:
    """Channels of the map of every stage, from a pass over one black image in eval mode: no statistics move."""
    modes = [(part, part.training) for part in backbone.modules()]
    reference = next(backbone.parameters())
    x = reference.new_zeros(1, data_info.channels, *height_width(data_info.image_size))
    backbone.eval()
    widths = []
    for stage in backbone.stages():
        x = stage(x)
        widths.append(x.shape[1])
    for part, training in modes:
        part.training = training
    return widths
