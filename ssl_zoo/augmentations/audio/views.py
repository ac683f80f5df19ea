"""What a method sees of recordings: windows of one length, which workers may cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations import pipeline
from ssl_zoo.augmentations.pipeline import Operations
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import Size


class View(Operations):
    """The operations of one view of recordings."""

    @property
    def cuts_first(self) -> bool:
        """Whether the first operation cuts a window, so that the rest of a recording is not needed."""
        return bool(self.ops) and getattr(self.ops[0], "cuts", False)

    def cut(self, sample: Any, draw: Draw) -> Any:
        """What a worker does: the leading cut of a batch of one; a view without one keeps the whole."""
        return self.ops[0](sample, self.draw_of(0, draw)) if self.cuts_first else sample

    def forward(self, x: Any, draw: Draw, start: int = 0) -> Any:
        """Apply the operations from ``start`` on."""
        for i in range(start, len(self.ops)):
            x = self.ops[i](x, self.draw_of(i, draw))
        if not isinstance(x, Tensor):
            raise ValueError("recordings differ in length, and networks take windows: put audio/crop among the ops")
        return x


class ViewPipeline(pipeline.ViewPipeline):
    """Recordings to windows ``[B, C, T]``, or to what an operation makes of them."""

    operations = View
    cuts = True

    @torch.no_grad()
    def forward(self, batch: Any, draw: Draw, prepared: bool = False) -> tuple[list[Any], dict[str, Tensor]]:
        if not prepared:
            return super().forward(batch, draw)
        # Views are made in full precision, whatever the training computes in.
        with torch.autocast(draw.device.type, enabled=False):
            views = [view(x, draw, start=int(view.cuts_first)) for view, x in zip(self._views, batch, strict=True)]
        return views, dict(draw.reports)

    @torch.no_grad()
    def crop(self, sample: Tensor, draw: Draw) -> list[Any]:
        """The leading cut of each view on one recording ``[C, L]``: batches of one."""
        alone = self.collate([sample])
        return [view.cut(alone, draw) for view in self._views]

    @property
    def _views(self) -> list[View]:
        return [view for view in self.views if isinstance(view, View)]


class AudioViews(pipeline.Augmentation):
    """What ``conf/augmentation`` has for recordings.

    Args:
        views, eval, where, once: as of :class:`ssl_zoo.augmentations.pipeline.Augmentation`.
        window: Samples of a view, which the operations of the file refer to.
    """

    modality = "audio"
    pipeline = ViewPipeline
    drawn_by = "ssl_zoo.report.sounds.save_sound_views"

    def __init__(
        self,
        views: Sequence[Any],
        eval: Mapping[str, Any],
        window: Size | None = None,
        where: str = "auto",
        once: bool = False,
    ) -> None:
        super().__init__(views, eval, where, once)
        self.window = window
