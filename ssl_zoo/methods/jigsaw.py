"""Jigsaw: which of some permutations has put the tiles of an image in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.dropout import with_dropout
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.jigsaw_head import arranged
from ssl_zoo.modules.permutations import Distance, permutation_set
from ssl_zoo.modules.tilings import count_problem, order_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Count, Rate, Size


class Jigsaw(Method):
    """Jigsaw, Noroozi & Favaro 2016, https://arxiv.org/abs/1603.09246 (Sec. 3), as facebookresearch/vissl@09270ed.

    The view has the tiles in the order of their cells; each sample draws one of the permutations, which is its class.
    What is permuted are embeddings, because every tile passes the network alone. The permutations are in the
    checkpoint. bbrattoli/JigsawPuzzlePytorch@ec85994, nearer to the paper, has dropout, a hidden layer in the
    classifier, and tiles that are standardised one by one: ``experiment=jigsaw_imagenet_bbrattoli_70ep``. Evaluated is
    the encoder on whole images; the online probe learns from the mean over tiles.

    Args:
        projector: Embeds a tile; ReLU follows.
        classifier: Called with the width of all embeddings of a sample; as many outputs as permutations.
        tiles: Of a view, P (9 for a 3 x 3 grid).
        permutations: N, how many are told apart.
        distance: How they are chosen: ``max_avg`` or ``max_min``, see :func:`permutation_set`.
        permutation_seed: Of the first of them.
        dropout: Share of the inputs of each linear layer of the classifier that are set to 0.
    """

    tensor_views = True
    views_required = (1, 0)
    views_allowed = (1, 0)
    permutations: Tensor  # [N, P]

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        classifier: Head,
        tiles: Size = 9,
        permutations: Size = 2000,
        distance: Distance = "max_avg",
        permutation_seed: Count = 0,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.register_buffer("permutations", permutation_set(tiles, permutations, distance, seed=permutation_seed))
        self.projector = projector(backbone.out_features)
        self.classifier = classifier(tiles * self.projector.out_features)
        if self.classifier.out_features != permutations:
            raise ValueError(
                f"method.classifier.out_features={self.classifier.out_features}: there are {permutations} permutations "
                "to tell apart; set it to ${method.permutations}"
            )
        self.dropout = dropout

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        return count_problem(settings["tiles"], views[0], "the view") or order_problem(views[0], cls.__name__)

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        tiles = batch.views[0]                                                       # [B, P, C, s, s]
        h = tiled(self.backbone, tiles)                                              # [B, P, F]
        z = F.relu(tiled(self.projector, h))                                         # [B, P, D]
        label = batch.rng.sample("permutation").integers("label", len(self.permutations))  # [B]
        z = arranged(z, self.permutations[label])                                    # [B, P, D]
        logits = with_dropout(self.classifier, z.flatten(1), self.dropout, batch.rng)  # [B, N]
        loss = cross_entropy_rows(logits, label).mean()
        accuracy = (logits.argmax(1) == label).float().mean()
        return {"loss": loss, "features": h.mean(1), "accuracy": accuracy}
