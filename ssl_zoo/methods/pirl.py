"""PIRL: an image and its shuffled tiles have the same embedding, that of a memory bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.backbones.apply import tiled
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather
from ssl_zoo.losses.nce import EPS_VISSL
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.bank_contrast import BankContrast, Contrast, candidates
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.jigsaw_head import JigsawHead
from ssl_zoo.modules.memory_bank import BankType, MemoryBank
from ssl_zoo.modules.tilings import count_problem
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Share, Size


class PIRL(Method):
    """PIRL, Misra & van der Maaten 2020, https://arxiv.org/abs/1912.01991 (eq. 1-5), as facebookresearch/vissl@09270ed.

    The image and its tiles both have to find the row of the image in the bank, which the image alone moves. With NCE
    they share a Z, that of the first tiles. HobbitLong/PyContrast@84f94ea has a softmax and the same negatives for both
    (``loss=sampled shared_negatives=true augmentation=pirl/large_pycontrast``).

    Args:
        projector: Linear in the authors' code; a second one of its kind embeds tiles.
        tiles: Tiles of the local view, P (9 for a 3 x 3 grid).
        loss: ``nce``, or ``sampled``: a softmax over the picked rows (``loss_type: cross_entropy`` of vissl).
        temperature: > 0.
        negatives: Rows drawn for each sample, K; one may be the sample's own.
        shared_negatives: The image and its tiles are scored against the same rows.
        jigsaw: Weight of the tiles' loss, in [0, 1]; the image's has the rest.
        bank_momentum: Weight of the old row when a sample's row is written.
        bank_dtype: Of the bank: float32, float16 or bfloat16.
    """

    tensor_views = True
    views_required = (1, 1)
    views_allowed = (1, 1)
    rows_of_samples = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head,
        tiles: Size = 9,
        loss: Contrast = "nce",
        temperature: Positive = 0.07,
        negatives: Size = 32000,
        shared_negatives: bool = False,
        jigsaw: Share = 0.5,
        bank_momentum: Share = 0.5,
        bank_dtype: BankType = "float32",
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.jigsaw_projector = JigsawHead(projector(backbone.out_features), tiles)
        n, dim = data_info.samples, self.projector.out_features
        self.bank = MemoryBank(n, dim, bank_momentum, bank_dtype, start="sphere")
        self.contrast = BankContrast(loss, temperature, n, EPS_VISSL)
        self.samples, self.negatives = n, negatives
        self.shared_negatives = shared_negatives
        self.jigsaw = jigsaw

    @classmethod
    def view_problem(cls, settings: Mapping[str, Any], views: list[dict[str, Any]]) -> str | None:
        (view,) = (view for view in views if view.get("kind") == "local")
        return count_problem(settings["tiles"], view, "the local view")

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        image, tiles = batch.views                                                   # tiles: [B, P, C, s, s]
        h = self.backbone(image)                                                     # [B, F]
        z = F.normalize(self.projector(h), dim=1)                                    # [B, D]
        order = batch.rng.sample("tiles").permutation(tiles.shape[1])                # [B, P]
        t = tiled(self.backbone, tiles)                                              # [B, P, F]
        z_tiles = F.normalize(self.jigsaw_projector(t, order), dim=1)                # [B, D]
        rows = self.rows(batch, "negatives")                                         # [B, 1 + K]
        rows_tiles = rows if self.shared_negatives else self.rows(batch, "negatives of tiles")
        loss_tiles = self.contrast(z_tiles, self.bank.keys, rows_tiles)              # first: its batch decides about Z
        loss_image = self.contrast(z, self.bank.keys, rows)
        self.bank.update(gather(batch.index), gather(z.detach()))  # staged: scored against the rows of before
        loss = (1 - self.jigsaw) * loss_image + self.jigsaw * loss_tiles
        return {"loss": loss, "features": h, "loss_image": loss_image, "loss_tiles": loss_tiles}

    def rows(self, batch: Batch, name: str) -> Tensor:
        """``[B, 1 + K]`` rows of the bank to score, each sample's own first."""
        return candidates(batch.index, batch.rng.sample(name), self.samples, self.negatives)
