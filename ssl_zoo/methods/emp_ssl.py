"""EMP-SSL: many patches of an image agree with their mean, and the patches of a batch fill the space."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.losses.coding_rate import patch_agreement, total_coding_rate
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head, first_layers
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Count, NonNegative, Positive, Size


class EMPSSL(Method):
    """EMP-SSL, Tong et al. 2023, https://arxiv.org/abs/2304.03977 (eq. 2-4), as main.py of tsb0601/EMP-SSL.

    Every view is a patch of fixed size; their number is the augmentation's (20 to 200 by the authors). All patches are
    embedded in one forward, so that batch norm sees them together. The code decides where it and the paper differ:
    weight 200 on the agreement, which is a mean over patches, and the rate is a mean over them too.

    Args:
        projector: Three layers with batch norm.
        invariance: Weight of the agreement of patches.
        rate: Weight of the total coding rate.
        distortion: Of the rate, > 0.
        bag: At evaluation the mean over ``bag * bag`` windows of half the image's side, each brought to the size of the
            view, for networks trained on enlarged patches; 0: the image as it is.
        patches: The same over so many windows at places spread evenly, in place of a ``bag`` (the authors: 128 random
            ones, changed like those of the training); None: none.
        evaluate_layers: First layers of the projector that are evaluated with the backbone, as ``pre_feature`` (the
            authors: 1, with its norm and activation); None: none.
    """

    tensor_views = True
    views_allowed = (None, None)
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        invariance: NonNegative = 200.0,
        rate: Positive = 1.0,
        distortion: Positive = 0.2,
        bag: Count = 0,
        patches: Size | None = None,
        evaluate_layers: Count | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        if bag < 0:
            raise ValueError(f"method.bag={bag}: wanted 0 (the whole image) or the number of windows along each side")
        if bag and patches:
            raise ValueError(
                f"method.bag={bag} and method.patches={patches} both say what is averaged; set method.bag=0, or "
                "method.patches=null"
            )
        head = projector(backbone.out_features)
        self.pre_feature = first_layers(head, evaluate_layers) if evaluate_layers else nn.Sequential()
        self.projector = head[len(self.pre_feature) :] if evaluate_layers else head
        self.invariance = invariance
        self.rate = rate
        self.distortion = distortion
        self.bag = bag
        self.patches = patches

    def features(self, view: Tensor) -> Tensor:
        return self.pre_feature(self.backbone(view))

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = concat(self.features, batch.views)                                       # V x [B, F]
        z = normalize(torch.stack(concat(self.projector, h)), dim=-1)                # [V, B, D]
        everyone = gather(z.transpose(0, 1)).transpose(0, 1)                         # [V, W * B, D]
        agreement = patch_agreement(z)
        rate = total_coding_rate(everyone, self.distortion).mean()
        loss = -self.invariance * agreement - self.rate * rate
        return {"loss": loss, "features": h[0], "agreement": agreement, "rate": rate}

    def embed(self, view: Tensor) -> Tensor:
        if not self.bag and not self.patches:
            return self.features(view)
        side = view.shape[-1] // 2
        room = view.shape[-1] - side
        starts = torch.linspace(0, room, self.bag).long().tolist()
        places = spread(self.patches, room + 1) if self.patches else product(starts, starts)
        windows = [view[:, :, top : top + side, left : left + side] for top, left in places]
        large = [interpolate(x, view.shape[-2:], mode="bilinear", antialias=True) for x in windows]
        return torch.stack([self.features(x) for x in large]).mean(0)


def spread(count: int, side: int) -> list[tuple[int, int]]:
    """The first ``count`` places of a sequence that fills a square of ``side`` evenly, however many are taken.

    Multiples of the plastic number's powers, modulo 1: https://en.wikipedia.org/wiki/Low-discrepancy_sequence,
    additive recurrence in two dimensions.
    """
    plastic = 1.324717957244746
    steps = 1 / plastic, 1 / plastic**2
    rows, columns = ([int((i * step) % 1 * side) for i in range(1, count + 1)] for step in steps)
    return list(zip(rows, columns, strict=True))
