"""GraphCL: agreement of a graph and an augmented one against the rest of the batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ssl_zoo.backbones.apply import per_view
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.xavier import xavier_
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.graph_contrast import one_way
from ssl_zoo.methods.base import Compared, Method
from ssl_zoo.modules.heads import Head
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive


class GraphCL(Method):
    """GraphCL, You et al. 2020, https://arxiv.org/abs/2010.13902, as unsupervised_TU/gsimclr.py of the authors.

    Args:
        projector: Head on the features; two layers of their width without norm in the authors' code.
        temperature: > 0; 0.2 for the TU sets, 0.1 and 0.5 elsewhere (:func:`one_way`).
    """

    modality = "graph"
    compares: Compared | None = "batch"

    def __init__(
        self, backbone: Backbone, optimizer: OptimizerRecipe, projector: Head, temperature: Positive = 0.2
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = xavier_(projector(backbone.out_features))
        self.temperature = temperature

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h = per_view(self.backbone, batch.views)                                     # 2 x [B, F]
        z = [F.normalize(self.projector(x), dim=1) for x in h]                       # 2 x [B, D]
        return {"loss": one_way(z[0], gather(z[1]), rank() * len(z[0]), self.temperature), "features": h[0]}
