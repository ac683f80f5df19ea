"""VICRegL: VICReg of whole views, and of the places of their feature maps, matched by location and by feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.local_features import at_places, grid_centres, matched_vicreg, nearest_places, several_vicreg
from ssl_zoo.losses.search import distances
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Share

CROP, FLIP = "image/random_resized_crop", "image/flip"


class VICRegL(Method):
    """VICRegL, Bardes et al. 2022, https://arxiv.org/abs/2210.01571 (eq. 1-4), as main_vicregl.py.

    The global views are compared with all the others. Every view must begin with ``image/random_resized_crop``, which
    tells where it was cut. The authors' code takes no notice of flips when it matches by location (``--no-flip-grid 1``
    is its default), so that the places of a mirrored view are matched with those of the wrong side.

    Args:
        projector: As VICReg's, for the pooled features.
        map_projector: The same for each place of the map.
        alpha: Weight of the whole views, the places have ``1 - alpha``; above 0 and below 1.
        invariance, variance, covariance: Weights of the three terms.
        matches: How many places of the first and of the second view of a pair are matched by location.
        all_by_feature: Match all places by feature; False: as many as by location.
        flip_grid: Mirror the places of mirrored views.
    """

    views_allowed = (2, None)
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        map_projector: Head,
        alpha: Share = 0.75,
        invariance: NonNegative = 25.0,
        variance: NonNegative = 25.0,
        covariance: NonNegative = 1.0,
        matches: Sequence[int] = (20, 4),
        all_by_feature: bool = True,
        flip_grid: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        backbone.require_dense("VICRegL")
        if not 0 < alpha < 1:
            raise ValueError(f"method.alpha={alpha}: wanted above 0 and below 1; 1 is method=vicreg")
        if len(matches) != 2 or min(matches) < 1:
            raise ValueError(f"method.matches={list(matches)}: wanted two numbers of at least 1, as [20, 4]")
        self.projector = projector(backbone.out_features)
        self.map_projector = map_projector(backbone.out_features)
        self.alpha = alpha
        self.weights = (invariance, variance, covariance)
        self.matches = tuple(matches)
        self.all_by_feature = all_by_feature
        self.flip_grid = flip_grid

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        dense = [self.backbone.forward_dense(view) for view in batch.views]          # V x ([B, F], [B, N, F], grid)
        z = [self.projector(view.pooled) for view in dense]                          # V x [B, D]
        maps = [self.embed_places(view.patches) for view in dense]                   # V x [B, N, E]
        places = [self.locate(batch, v, view.grid) for v, view in enumerate(dense)]  # V x [B, N, 2]
        pairs = [(i, j) for i in range(2) for j in range(len(z)) if j != i]
        whole = several_vicreg(z, [gather(x) for x in z], pairs, *self.weights)
        local = torch.stack([self.compare(maps[i], maps[j], places[i], places[j]) for i, j in pairs]).mean()
        loss = self.alpha * whole + (1 - self.alpha) * local
        return {"loss": loss, "features": dense[0].pooled, "global": whole, "local": local}

    def embed_places(self, patches: Tensor) -> Tensor:
        """Batch norm sees all places of all images together."""
        return tiled(self.map_projector, patches)

    def locate(self, batch: Batch, view: int, grid: tuple[int, int]) -> Tensor:
        """``[B, N, 2]`` places of a view in the image, in pixels."""
        box, flipped = (batch.extra.get(f"{view}/{name}") for name in (f"{CROP}/box", f"{FLIP}/flipped"))
        if box is None:
            raise ConfigError(
                f"augmentation.views: VICRegL must know where view {view} was cut from the image; begin its ops with "
                f"{CROP}"
            )
        return grid_centres(box, grid, flipped if self.flip_grid else None)

    def compare(self, a: Tensor, b: Tensor, place_a: Tensor, place_b: Tensor) -> Tensor:
        """Both maps ``[B, N, E]`` matched with each other, by feature and by location."""
        by_feature: Sequence[int | None] = (None, None) if self.all_by_feature else self.matches
        near, far = distances(a, b), distances(place_a, place_b)                     # [B, N, M], no grad
        sides = [
            (a, b, near, by_feature[0]), (b, a, near.mT, by_feature[1]),
            (a, b, far, self.matches[0]), (b, a, far.mT, self.matches[1]),
        ]  # fmt: skip
        return torch.stack([self.match(*side) for side in sides]).sum() / 2

    def match(self, own: Tensor, other: Tensor, distances: Tensor, count: int | None) -> Tensor:
        here, there = nearest_places(distances, count)                               # 2 x [B, K]
        x, y = at_places(own, here), at_places(other, there)                         # 2 x [B, K, E]
        return matched_vicreg(x, y, gather(x), gather(y), *self.weights)
