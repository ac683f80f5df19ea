"""What represents a view: which vectors ask, and among which they find their answers.

What each can be told stands in conf/method/contrastive/extraction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_zoo.backbones.apply import concat, passing
from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.image.levels import vector_and_maps, widths_of
from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, shuffled
from ssl_zoo.modules.balance import balanced_with_queue
from ssl_zoo.modules.comparison import Seen, Way, one_to_one
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import Head, same_width
from ssl_zoo.modules.patch_rows import patch_grid, patches_of
from ssl_zoo.modules.places import at_most, drawn_place
from ssl_zoo.modules.prototypes import Prototypes
from ssl_zoo.modules.queue import Queue
from ssl_zoo.modules.similarity import Similarity
from ssl_zoo.optim.schedules import Progress, Schedule, value
from ssl_zoo.ranges import Count, Positive, Share, Size
from ssl_zoo.sides import square


class Extraction(nn.Module):
    """Heads and state behind the encoder, which is the method's and passed on to every call."""

    offers = frozenset({"vectors", "both ways"})  # what a loss may need
    views_required: tuple[int, int] = (2, 0)
    views_allowed: tuple[int | None, int | None] = (2, 0)
    begins: tuple[str, ...] = ()  # as a method's
    uniform_loss: float | None = None

    def __init__(self, backbone: Backbone, info: DataInfo, projector: Head | None = None) -> None:
        super().__init__()
        self.projector = nn.Identity() if projector is None else projector(backbone.out_features)
        self.width = int(getattr(self.projector, "out_features", backbone.out_features))  # of what is compared

    def before_step(self, backbone: Backbone, progress: Progress) -> None: ...

    def after_step(self, backbone: Backbone, progress: Progress) -> None: ...

    def embed(self, backbone: Backbone, view: Any) -> Tensor:
        return backbone(view)


class Projection(Extraction):
    """Projections of both views (SimCLR, Barlow Twins); without a projector their pooled features."""

    offers = frozenset({"vectors", "both ways", "one network"})

    def __init__(
        self, backbone: Backbone, info: DataInfo, projector: Head | None = None, views_together: bool = True
    ) -> None:
        super().__init__(backbone, info, projector)
        self.passes = passing(views_together, concat)

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        h = self.passes(backbone, batch.views)                                       # 2 x [B, F]
        z = self.passes(self.projector, h)                                           # 2 x [B, D]
        return Seen(h[0], [[one_to_one(z[0], z[1])], [one_to_one(z[1], z[0])]])


class Teacher(Extraction):
    """Predictions ask, and projections of the other view by a moving average answer (BYOL; momentum 0: SimSiam)."""

    def __init__(
        self, backbone: Backbone, info: DataInfo, projector: Head, predictor: Head | None = None,
        momentum: Share | Schedule = 0.99, redraw: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(backbone, info, projector)
        self.predictor = nn.Identity() if predictor is None else predictor(self.width)
        same_width(self.projector, self.projector if predictor is None else self.predictor)
        fresh = redraw and not backbone.pretrained
        student = (backbone.redrawn(), projector(backbone.out_features)) if fresh else (backbone, self.projector)
        self.teacher, self.momentum = EMA(nn.Sequential(*student)), momentum

    def after_step(self, backbone: Backbone, progress: Progress) -> None:
        self.teacher.update(nn.Sequential(backbone, self.projector), value(self.momentum, progress))

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        h = [backbone(view) for view in batch.views]                                 # 2 x [B, F]
        p = [self.predictor(self.projector(x)) for x in h]                           # 2 x [B, D]
        t = [self.teacher(view) for view in batch.views]                             # 2 x [B, D], no grad
        return Seen(h[0], [[one_to_one(p[0], t[1])], [one_to_one(p[1], t[0])]])


class Remembered(Extraction):
    """View 0 asks, a moving average answers about view 1, and its past answers are the wrong ones (MoCo, shuffled)."""

    offers = frozenset({"vectors"})

    def __init__(
        self, backbone: Backbone, info: DataInfo, projector: Head, momentum: Share | Schedule = 0.999,
        queue_size: Size = 65536,
    ) -> None:  # fmt: skip
        super().__init__(backbone, info, projector)
        self.teacher, self.momentum = EMA(nn.Sequential(backbone, self.projector)), momentum
        self.queue = Queue(queue_size, self.width, info.batch_size)

    def before_step(self, backbone: Backbone, progress: Progress) -> None:
        self.teacher.update(nn.Sequential(backbone, self.projector), value(self.momentum, progress))

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        h = backbone(batch.views[0])                                                 # [B, F]
        answers = shuffled(self.teacher, batch.views[1], batch.rng.shared("shuffle1"))
        k = similarity.embed(answers)                                                # [B, D], no grad
        self.queue.push(gather(k))  # staged: no key is a wrong answer to its own query
        return Seen(h, [[one_to_one(self.projector(h), k)]], memory=self.queue.keys)


class Maps(Extraction):
    """A drawn place of a layer asks, and all places of that layer of the other view answer (AMDIM's maps, YADIM)."""

    def __init__(
        self, backbone: Backbone, info: DataInfo, block: Head, layers: Sequence[int] = (-1,),
        grids: Sequence[Size | None] = (None,),
    ) -> None:  # fmt: skip
        super().__init__(backbone, info)
        self.layers, self.grids = list(layers), list(grids)
        if not layers or len(grids) != len(layers):
            raise ValueError(f"method.extraction.grids={self.grids}: wanted one for each of layers={self.layers}")
        levels = range(1, len(layers) + 1)
        widths = widths_of(backbone, info.channels, square(info), self.layers, levels)
        self.blocks = nn.ModuleDict({str(i): block(widths[i]) for i in levels})
        self.width = cast(int, self.blocks["1"].out_features)

    def levels(self, backbone: Backbone, view: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """``[B, F]``, and the layers in the common space ``[B, D, h, w]``, counted from 1."""
        whole, *maps = vector_and_maps(backbone, view, self.layers)
        small = [at_most(x, grid) for x, grid in zip(maps, self.grids, strict=True)]
        return whole.flatten(1), {i: self.blocks[str(i)](x) for i, x in enumerate(small, 1)}

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        h, seen = zip(*[self.levels(backbone, x) for x in batch.views], strict=True)
        directions: list[list[Way]] = [[], []]
        for view, i in product((0, 1), seen[0]):
            query = drawn_place(seen[view][i], batch.rng, f"source{i}_view{view}")   # [B, D]
            key = seen[1 - view][i].flatten(2).mT                                    # [B, L, D]
            directions[view].append(Way(query[:, None], key, torch.arange(key.shape[1], device=key.device)[None]))
        return Seen(h[0], directions)


class Grid(Extraction):
    """Places of a grid of patches ask, from the rows above, for those r >= 2 rows below, r - 1 times (CPC v2)."""

    offers = frozenset({"vectors"})
    views_required = views_allowed = (1, 0)

    def __init__(
        self, backbone: Backbone, info: DataInfo, context: Head, targets: Size = 64, patch: Positive = 0.25
    ) -> None:
        super().__init__(backbone, info)
        self.side, _ = patches_of(square(info), patch, "method.extraction.patch")
        self.context = context(backbone.out_features)
        self.target, self.predictor = (nn.Conv2d(backbone.out_features, targets, 1) for _ in range(2))
        self.width = targets

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        z = patch_grid(backbone, batch.views[0], self.side)                          # [B, F, G, G]
        key, p = self.target(z).flatten(2).mT, self.predictor(self.context(z))       # [B, G * G, D], [B, D, G, G]
        place = torch.arange(key.shape[1], device=key.device).view(z.shape[2:])      # [G, G]
        below = [(r, p[:, :, :-r].flatten(2).mT, place[r:].reshape(-1, 1)) for r in range(2, len(place))]
        return Seen(z.mean((2, 3)), [[Way(query, key, match, r - 1) for r, query, match in below]])

    def embed(self, backbone: Backbone, view: Tensor) -> Tensor:
        return patch_grid(backbone, view, self.side).mean((2, 3))


class Clusters(Extraction):
    """Projections and prototypes on the sphere, and balanced assignments of two views to these (SwAV)."""

    offers = frozenset({"clusters"})
    views_allowed = (None, None)

    def __init__(
        self, backbone: Backbone, info: DataInfo, projector: Head, prototypes: Size = 3000, epsilon: Positive = 0.05,
        iterations: Size = 3, queue_size: Count = 0, queue_start: Count = 15,
    ) -> None:  # fmt: skip
        super().__init__(backbone, info, projector)
        self.prototypes = Prototypes(self.width, prototypes)
        self.queues = nn.ModuleList(Queue(queue_size, self.width, info.batch_size) for _ in range(2 * bool(queue_size)))
        self.balance, self.queue_start = (epsilon, iterations), queue_start
        self.begins, self.uniform_loss = ("extraction.queue_start",) * bool(queue_size), math.log(prototypes)

    def before_step(self, backbone: Backbone, progress: Progress) -> None:
        self.prototypes.normalize_()

    def forward(self, backbone: Backbone, batch: Batch, similarity: Similarity, progress: Progress) -> Seen:
        h = concat(backbone, batch.views)                                            # V x [B, F]
        z = [similarity.embed(x) for x in concat(self.projector, h)]                 # V x [B, D]
        s = self.prototypes(torch.cat(z)).chunk(len(z))                              # V x [B, K]
        begun = len(self.queues) and progress.epoch >= self.queue_start
        queues = [cast(Queue, queue) for queue in self.queues] if begun else [None, None]
        parts = zip(s, z, queues, strict=False)  # the first two views
        q = [balanced_with_queue(a.detach(), b.detach(), self.prototypes, c, *self.balance) for a, b, c in parts]
        return Seen(h[0], scores=s, assignments=q)
