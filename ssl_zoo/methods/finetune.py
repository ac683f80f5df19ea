"""Fine-tuning: all of a pre-trained network, and a classifier on it, trained on labels."""

from __future__ import annotations

from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import mean_of_chosen
from ssl_zoo.errors import require
from ssl_zoo.losses.self_training import cross_entropy_rows
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import Head, first_layers
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Rate

Init = Literal["zeros", "normal"]
INITS = ("zeros", "normal")


class FineTune(Method):
    """Fine-tuning from the middle of a head, second step of SimCLR v2, https://arxiv.org/abs/2006.10029 Sec. 3.

    The first ``head_layers`` layers of the pre-trained projector stay and become part of the classifier, a linear
    layer follows. ``python evaluate.py protocol=finetune`` builds this from the checkpoint of any method.

    Args:
        projector: The pre-trained method's; None for one that has none, then ``head_layers`` is 0.
        head_layers: Layers of it to keep: 0 none (BYOL, MAE, SimCLR v1), 1 the first with its activation (SimCLR v2),
            -1 all.
        init: Of the last layer: ``zeros``, or ``normal`` with deviation 0.01; its bias starts at 0.
        label_smoothing: In [0, 1).
        start: Safetensors file with the pre-trained weights by this module's names, read when a new run begins; None:
            everything starts as it was drawn.
    """

    views_required = (1, 0)
    views_allowed = (1, 0)
    needs_labels = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        projector: Head | None = None,
        head_layers: int = 0,
        init: Init = "zeros",
        label_smoothing: Rate = 0.0,
        start: str | None = None,
    ) -> None:
        super().__init__(backbone, optimizer)
        if data_info.classes is None:
            raise ValueError("fine-tuning needs labels and the data has none; choose a labelled data set")
        require("init", init, INITS)
        if head_layers and projector is None:
            raise ValueError(f"head_layers={head_layers}: the pre-trained method has no projector; wanted 0")
        kept = first_layers(projector(backbone.out_features), head_layers) if projector else nn.Sequential()
        widths = [layer.out_features for layer in kept if isinstance(layer, nn.Linear)]
        last = nn.Linear(widths[-1] if widths else backbone.out_features, data_info.classes)
        nn.init.normal_(last.weight, std=0.01) if init == "normal" else nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.classifier = nn.Sequential(*kept, last)
        self.label_smoothing = label_smoothing
        self.start = start

    def setup(self, stage: str) -> None:
        """Before Lightning restores a checkpoint: a run that is resumed does not need the file any more."""
        if self.start is not None and getattr(self.trainer, "ckpt_path", None) is None:
            self.begin_with(load_file(self.start))

    def begin_with(self, state: dict[str, Tensor]) -> None:
        """Copy pre-trained weights; only the new linear layer may be missing."""
        missing, extra = self.load_state_dict(state, strict=False)
        last = f"classifier.{len(self.classifier) - 1}."
        absent = [name for name in missing if not name.startswith(last)]
        if absent or extra:
            raise ValueError(f"pre-trained weights do not fit: missing {absent[:3]}, unknown {extra[:3]}")

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None  # needs_labels
        h = self.backbone(batch.views[0])                                            # [B, F]
        logits = self.classifier(h)                                                  # [B, C]
        losses = cross_entropy_rows(logits, batch.label, self.label_smoothing)       # [B], 0 without a label
        right = (logits.detach().argmax(1) == batch.label).to(losses.dtype)          # [B]
        loss, accuracy = (mean_of_chosen(x, batch.label != -1) for x in (losses, right))
        return {"loss": loss, "features": h, "accuracy": accuracy}

    @torch.no_grad()
    def logits(self, view: Tensor) -> Tensor:
        """``[B, C]``."""
        return self.classifier(self.backbone(view))
