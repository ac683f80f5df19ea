"""Views of time series: float ``[B, T, C]``, NaN where a number is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_zoo.augmentations.pipeline import Augmentation, ViewPipeline


class SeriesViews(Augmentation):
    """Views of a batch of series.

    Args:
        views, eval, where: As of :class:`ssl_zoo.augmentations.pipeline.Augmentation`.
        once: A series has the same views in every epoch, as where TS-TCC's ``dataloader.py`` makes them when the data
            are read.
    """

    modality = "series"
    drawn_by = "ssl_zoo.report.series.save_series_views"

    def __init__(self, views: Sequence[Any], eval: Mapping[str, Any], where: str = "auto", once: bool = False) -> None:
        super().__init__(views, eval, where)
        self.once = once

    def make_views(self, source: Any) -> ViewPipeline:
        pipeline = super().make_views(source)
        pipeline.once = self.once
        return pipeline
