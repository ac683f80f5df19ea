"""SupCon: all views of a class attract each other, all others repel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import require
from ssl_zoo.losses.supervised import sup_con, sup_con_inside
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size

MODES = ("all", "one")


class SupCon(Method):
    """Supervised contrast, Khosla et al. 2020, https://arxiv.org/abs/2004.11362 (eq. 2), as ``SupConLoss``.

    The first of two stages: the second is a linear classifier on the frozen encoder (``evaluate.py protocol=linear``).
    Samples without a label are positives of their own views only; with none labelled it is SimCLR. All views go through
    the encoder together, as in the authors' ``main_supcon.py``, so that batch norm sees them together.

    Args:
        projector: Two layers without batch norm.
        temperature: > 0.
        base_temperature: Only scales the loss; the authors' code keeps 0.07, which makes it 1.43 times the paper's.
        mode: ``all``: every view is an anchor; ``one``: the first view only.
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
        inside: Add up the positives inside the logarithm, without the factor of temperatures (solo-learn); None: L_out.
        views_together: Whether batch norm sees all views at once; None: it does, as in the authors' code.
    """

    views_allowed = (None, None)
    needs_labels = True
    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        temperature: Positive = 0.1,
        base_temperature: Positive = 0.07,
        mode: Literal["all", "one"] = "all",
        grad_cache: Size = 1,
        inside: bool | None = None,
        views_together: bool | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        require("method.mode", mode, MODES)
        self.projector = projector(backbone.out_features)
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.mode = mode
        self.inside = inside
        self.grad_cache = grad_cache
        self.passes = passing(views_together, concat)

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = self.passes(self.backbone, views)                                        # V x [B, F]
        z = self.passes(self.projector, h)                                           # V x [B, D]
        return h[0], *[nn.functional.normalize(x, dim=1) for x in z]                 # [B, F], V x [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        h, *parts = in_chunks(self, self.encode, batch.views, self.grad_cache)       # [B, F], V x [B, D]
        z = torch.cat(parts)                                                         # [V * B, D]
        keys = gather(z)                                                             # [W * V * B, D]
        labels = gather(self.classes(batch.label).repeat(len(parts)))                # [W * V * B]
        anchors = z if self.mode == "all" else parts[0]                              # [A, D]
        own = torch.arange(len(anchors), device=z.device) + rank() * len(z)          # [A]
        if self.inside:
            loss = sup_con_inside(anchors, keys, own, labels, self.temperature)
        else:
            loss = sup_con(anchors, keys, own, labels, self.temperature, self.base_temperature)
        return {"loss": loss, "features": h}

    def classes(self, label: Tensor) -> Tensor:
        """``[B]`` labels; a sample without one gets a negative number that no other sample has."""
        row = torch.arange(len(label), device=label.device) + rank() * len(label)
        return torch.where(label >= 0, label, -1 - row)
