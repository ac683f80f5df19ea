"""Relative patches: where one tile of an image lies, seen from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.errors import require
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import dropout as drop
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.patch_pairs import CLASSES, PAIRS, Pairing, pair_features
from ssl_zoo.modules.tilings import order_problem, place_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Rate
from ssl_zoo.sides import Side, height_width


class RelativePatch(Method):
    """Relative patch prediction, Doersch et al. 2015, https://arxiv.org/abs/1505.05192 (Sec. 3).

    As google/revisiting-self-supervised@b530e3b by default: each outer tile of a 3 x 3 grid against the one in the
    middle, embeddings interleaved, dropout. The author's cdoersch/deepcontext@5307282 takes all pairs that touch, in
    both orders, of tiles with gaps (``experiment=relative_patch_imagenet_deepcontext``). Its loss is a sum
    over pairs; here it is the mean. Evaluated is the encoder on whole images; the online probe learns from the mean
    over tiles.

    Args:
        projector: Embeds a tile.
        classifier: Called with twice the width of an embedding; 8 outputs.
        grid: Tiles of the view down and across, one number for both.
        pairing: ``centre`` or ``neighbours``, see :mod:`ssl_zoo.modules.patch_pairs`.
        interleaved: How two embeddings stand side by side, which matters to weights from elsewhere alone.
        activate: ReLU between projector and classifier (deepcontext).
        dropout: Share of the inputs of the classifier's last layer that are set to 0.
    """

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (1, 0)
    pairs: Tensor  # [K, 2]
    labels: Tensor  # [K]

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        classifier: Head,
        grid: Side = 3,
        pairing: Pairing = "centre",
        interleaved: bool = True,
        activate: bool = False,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.pairing", pairing, PAIRS)
        tiles, labels = PAIRS[pairing](*height_width(grid))
        self.register_buffer("pairs", tiles, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self.projector = projector(backbone.out_features)
        self.classifier = classifier(2 * self.projector.out_features)
        if self.classifier.out_features != CLASSES:
            raise ValueError(f"method.classifier.out_features={self.classifier.out_features}: a tile has {CLASSES} "
                             f"places around it; set it to {CLASSES}")
        self.interleaved = interleaved
        self.activate = activate
        self.dropout = dropout

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        problem = place_problem(height_width(settings["grid"]), views[0])
        return problem or order_problem(views[0], cls.__name__)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        tiles = batch.views[0]                                                       # [B, P, C, s, s]
        h = tiled(self.backbone, tiles)                                              # [B, P, F]
        z = tiled(self.projector, h)                                                 # [B, P, D]
        z = F.relu(z) if self.activate else z
        pairs = pair_features(z, self.pairs, self.interleaved)                       # [B, K, 2 D]
        hidden = tiled(self.classifier[:-1], pairs)                                  # [B, K, H]
        logits = self.classifier[-1](drop(hidden, self.dropout, batch.rng.sample("dropout")))  # [B, K, 8]
        label = self.labels.expand(len(tiles), -1)                                   # [B, K]
        loss = cross_entropy_rows(logits.flatten(0, 1), label.flatten()).mean()
        accuracy = (logits.argmax(2) == label).float().mean()
        return {"loss": loss, "features": h.mean(1), "accuracy": accuracy}
