"""i-Mix: inputs are mixed, and so are the identities that the loss asks for; three methods that it improves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import gather
from ssl_zoo.losses.mixed_targets import n_pair
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.modules.heads import Head
from ssl_zoo.modules.mixing import Mixer
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import Positive, Size


def turns(symmetric: bool) -> list[tuple[int, int]]:
    """(query view, key view) of each direction."""
    return [(0, 1), (1, 0)] if symmetric else [(0, 1)]


class IMixNPair(Method):
    """i-Mix on N-pair contrast, Lee et al. 2020, https://arxiv.org/abs/2010.08887, as ``builder.py --method npair``.

    Only queries are mixed. Queries and keys go through one encoder together, both learn, and only queries look for
    keys, not keys for queries.

    Args:
        projector: Two layers, batch norm after both.
        mixer: What is mixed, and how.
        temperature: > 0.
        symmetric: Each view is query and key in turn and both losses are added (``--sym``).
        grad_cache: Chunks in which a batch is embedded, so that the memory for activations is that of one chunk.
    """

    tensor_views = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        projector: Head,
        mixer: Mixer = Mixer(),  # noqa: B008  (frozen dataclass)
        temperature: Positive = 0.2,
        symmetric: bool = False,
        grad_cache: Size = 1,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.projector = projector(backbone.out_features)
        self.mixer = mixer
        self.compares = mixer.compares or "batch"
        self.temperature = temperature
        self.symmetric = symmetric
        self.grad_cache = grad_cache

    def encode(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        h = concat(self.backbone, views)                                             # 2 x [B, F]
        z = concat(self.projector, h)                                                # 2 x [B, D]
        return h[1], *[nn.functional.normalize(x, dim=1) for x in z]                 # [B, F], 2 x [B, D]

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        batch = self.mixer.inputs(batch)
        losses, features = [], []
        for query, key in turns(self.symmetric):
            mixed = self.mixer.mix(batch.views[query], batch.rng, f"mix{query}")     # [B, ...], 2 x [B, 2]
            h, q, k = in_chunks(self, self.encode, [mixed.view, batch.views[key]], self.grad_cache)
            losses.append(n_pair(q, gather(k), mixed.positives, self.temperature, mixed.weights))
            features.append(h)
        return {"loss": sum(losses[1:], losses[0]), "features": features[0]}
