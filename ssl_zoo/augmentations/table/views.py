"""Views of rows: operations on columns, then the numbers that a network gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ssl_zoo.augmentations.pipeline import Augmentation, ViewPipeline
from ssl_zoo.augmentations.table.encode import Encode


class TablePipeline(ViewPipeline):
    """Views end as :class:`Encode` says."""

    @classmethod
    def make_ending(cls, facts: Mapping[str, Any]) -> nn.Module:
        return Encode(facts["widths"])


class TableViews(Augmentation):
    """Views of rows of a table; operations are told the training rows, from which corruption draws."""

    modality = "table"
    pipeline = TablePipeline
    drawn_by = "ssl_zoo.report.tables.save_rows"

    def told(self, source: Any) -> Mapping[str, Any]:
        """The facts, and the training rows ``[N, M]``."""
        return {**source.facts, "table": source.fetch(torch.arange(len(source))).cpu()}
