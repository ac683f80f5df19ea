"""RotNet: by how many quarter turns an image was rotated."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.errors import require
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.quarter_turns import TURNS, all_turns, turned
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Share
from ssl_zoo.sides import square


class Rotation(Method):
    """RotNet, Gidaris et al. 2018, https://arxiv.org/abs/1803.07728 (eq. 1-3), as gidariss/FeatureLearningRotNet.

    A view is cropped and mirrored once and then seen in all four rotations, which share the batch norm. vissl's form
    (``turns=one``) draws one rotation for each image. Labels 0 to 3 are 0, 90, 180, 270 degrees counter-clockwise.
    Features are judged on images that are not rotated; those of a middle layer are the better ones (``layer``).

    Args:
        turns: ``all`` four of each image in the batch, as the authors; ``one``, drawn, as vissl.
        flip_after: Probability of a mirror *behind* the rotation, where vissl's configuration has its only one: a
            quarter turn then looks like three of them, and no network tells more than three quarters of them right.

    Raises:
        ConfigError: If images are not square.
    """

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (1, 0)

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        turns: Literal["all", "one"] = "all",
        flip_after: Share = 0.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.turns", turns, ("all", "one"))
        square(data_info)  # other rectangles have another shape when they lie on their side
        self.classifier = nn.Linear(backbone.out_features, TURNS)
        nn.init.zeros_(self.classifier.bias)
        self.turns, self.flip_after = turns, flip_after

    def rotations(self, view: Tensor, rng: BatchRNG) -> tuple[Tensor, Tensor]:
        """Rotated views ``[B, R, C, s, s]`` of ``[B, C, s, s]``, R = 4 or 1, and their labels ``[B, R]``."""
        if self.turns == "all":
            x, label = all_turns(view), torch.arange(TURNS, device=view.device).expand(len(view), -1)
        else:
            label = rng.sample("turns").integers("turns", TURNS, 1)                  # [B, 1]
            x = turned(view, label[:, 0])[:, None]
        if self.flip_after:
            mirrored = rng.sample("flip").uniform("flip", x.shape[1]) < self.flip_after      # [B, R]
            x = torch.where(mirrored[:, :, None, None, None], x.flip(-1), x)
        return x, label

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        x, label = self.rotations(batch.views[0], batch.rng)                         # [B, R, C, s, s], [B, R]
        h = tiled(self.backbone, x)                                                  # [B, R, F]
        logits = self.classifier(h).flatten(0, 1)                                    # [B * R, 4]
        losses = cross_entropy_rows(logits, label.flatten())                         # [B * R]
        right = (logits.argmax(1) == label.flatten()).to(losses.dtype)
        out = {"loss": losses.mean(), "right": right.mean()}
        # A rotated image is no evaluation view; among all turns the first is the image as it was.
        return out | {"features": h[:, 0]} if self.turns == "all" and not self.flip_after else out
