"""AMDIM: a view as a whole tells every place of the other view from all others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.levels import layers_of_sides, vector_and_maps, widths_of
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.losses.local_contrast import clipped_cross_entropy, local_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.heads import MLP, Head
from ssl_zoo.modules.places import at_most, drawn_place
from ssl_zoo.optim.recipe import OptimizerRecipe
from ssl_zoo.ranges import NonNegative, Positive, Size
from ssl_zoo.sides import square


class AMDIM(Method):
    """AMDIM, Bachman et al. 2019, https://arxiv.org/abs/1906.00910 (eq. 2-5), as Philip-Bachman/amdim-public@8754ae1.

    A view has levels: level 0 is the whole of it, level i the map of ``layers[i - 1]``. A comparison (s, t) contrasts a
    vector of level s (of a map: one drawn place) with all places of level t of the other view, in both directions.
    Maps of any network are averaged down to ``grids``, and a block that ends in a batch norm stands behind every level.
    The authors' encoder (amdim_encoder) has maps of 5 x 5 and 7 x 7 and compares the whole as it is, but for a last
    batch norm (``whole``). What is evaluated is the backbone.

    Args:
        block, whole: Called with the width of a level: into the common space; ``whole`` for level 0 (None: ``block``).
        layers: Counted from the end; null: those with the sides of ``grids`` if there are such, else -1 and on.
        grids: Largest side of each map, null: as it is.
        comparisons: Pairs of levels (source, target).
        clip, penalty: Soft limit of the scores (null: none), and the weight of their mean square before it.
        classifiers: Train the authors' two on detached features (without dropout); needs labels, unlike our probes.

    Raises:
        ConfigError: If the backbone has neither maps nor tokens.
        ValueError: If levels are compared that do not exist, or classifiers have no labels.
    """

    compares = "batch"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerRecipe,
        data_info: DataInfo,
        block: Head,
        whole: Head | None = None,
        layers: Sequence[int] | None = None,
        grids: Sequence[Size | None] = (5, 7),
        comparisons: Sequence[Sequence[int]] = ((0, 1), (0, 2), (1, 1)),
        clip: Positive | None = 20.0,
        penalty: NonNegative = 0.05,
        classifiers: bool = False,
    ) -> None:
        super().__init__(backbone, optimizer)
        self.grids, self.limit, self.penalty = list(grids), clip, penalty
        self.layers = list(layers or layers_of_sides(backbone, data_info.channels, square(data_info), grids))
        self.comparisons = [(source, target) for source, target in comparisons]
        self.used = sorted({level for pair in self.comparisons for level in pair})
        if len(self.grids) != len(self.layers) or not set(self.used) <= set(range(len(self.layers) + 1)):
            raise ValueError(
                f"method.layers={self.layers}, method.grids={self.grids}, method.comparisons={self.comparisons}: "
                f"wanted a grid for each layer, and comparisons of the levels 0 (the whole) to {len(self.layers)}"
            )
        widths = widths_of(backbone, data_info.channels, square(data_info), self.layers, self.used)
        self.blocks = nn.ModuleDict({str(i): (block if i or whole is None else whole)(widths[i]) for i in self.used})
        self.classifiers = nn.ModuleList()
        if classifiers:
            if data_info.classes is None:
                raise ValueError("method.classifiers=true needs labels, and the data has none; set it to false")
            self.classifiers.append(MLP(widths[0], [1024], data_info.classes, bias=False, last_bias=True))
            self.classifiers.append(MLP(widths[0], [], data_info.classes, last_bias=True))

    def levels(self, view: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Features ``[B, F]``, and the levels that are compared, in the common space: ``[B, D, h, w]``."""
        raw = vector_and_maps(self.backbone, view, self.layers)
        small = [at_most(x, grid) for x, grid in zip(raw, [None, *self.grids], strict=True)]
        return raw[0].flatten(1), {level: self.blocks[str(level)](small[level]) for level in self.used}

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        h, seen = zip(*[self.levels(view) for view in batch.views], strict=True)     # 2 x [B, F], 2 x levels
        targets = {target for _, target in self.comparisons}
        keys = [{t: gather(levels[t].flatten(2)) for t in targets} for levels in seen]       # 2 x [W * B, D, L]
        terms, penalties = {}, []
        for s, t in self.comparisons:
            found = []
            for v in (0, 1):
                source = drawn_place(seen[v][s], batch.rng, f"source{s}_view{v}")        # [B, D]
                found.append(local_nce(source, keys[1 - v][t], rank() * len(source), self.limit, self.penalty))
            terms[f"nce_{s}_to_{t}"] = -torch.stack([share.mean() for share, _ in found]).mean()
            penalties += [penalty for _, penalty in found]
        terms["penalty"] = torch.stack(penalties).sum() / 2
        if len(self.classifiers):
            terms["classifiers"] = self.classify([x.detach() for x in h], batch.label)
        return {"loss": torch.stack(list(terms.values())).sum(), "features": h[0], **terms}

    def classify(self, h: Sequence[Tensor], label: Tensor | None) -> Tensor:
        assert label is not None  # the data has classes
        logits = [torch.cat(concat(classifier, h)) for classifier in self.classifiers]       # 2 x [2B, classes]
        return torch.stack([clipped_cross_entropy(x, label.repeat(2)) for x in logits]).sum()
