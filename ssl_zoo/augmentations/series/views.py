"""Views of time series: float ``[B, T, C]``, NaN where a number is missing."""

from __future__ import annotations

from ssl_zoo.augmentations.pipeline import Augmentation


class SeriesViews(Augmentation):
    """Views of a batch of series."""

    modality = "series"
    drawn_by = "ssl_zoo.report.series.save_series_views"
