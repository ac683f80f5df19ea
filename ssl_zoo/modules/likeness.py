"""Which samples count as alike: the views of one sample, or the samples of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ssl_zoo.data.batch import Batch, DataInfo
from ssl_zoo.distributed import gather, rank
from ssl_zoo.errors import require

Positives = Literal["views", "label"]


class Likeness:
    """Numbers of the rows of a batch that are equal for rows that are alike, and batches that hold some of those.

    Args:
        positives: ``views``: rows of one sample are alike; ``label``: rows of one class. A sample without a label is
            like its own views only.
        instances: So many samples of a class follow one another in the order of an epoch, so that a batch holds several
            of each (``BalancedBatchSampler`` of adambielski/siamese-triplet); None: any order.
        data_info: Of the training set.

    Raises:
        ValueError: If classes are asked for and the data has no labels, or ``instances`` without classes.
    """

    def __init__(self, positives: Positives, instances: int | None, data_info: DataInfo) -> None:
        require("method.positives", positives, get_args(Positives))
        if positives == "label" and data_info.classes is None:
            raise ValueError(
                "method.positives=label needs labels and the training set has none; set method.positives=views, or use "
                "labelled data"
            )
        if positives == "views" and instances is not None:
            raise ValueError(
                f"method.instances={instances} is of samples of a class; set method.positives=label with it, or "
                "method.instances=null"
            )
        self.by_label = positives == "label"
        self.instances = instances

    def numbers(self, batch: Batch, views: int) -> Tensor:
        """``[V * W * B]`` of the rows of the global batch, in the order of :func:`rows_of`."""
        row = torch.arange(len(batch.index), device=batch.index.device)
        own = -1 - (row + rank() * len(row))  # a negative number that no other sample of the global batch has
        known = batch.label if self.by_label and batch.label is not None else own
        return gather(torch.where(known >= 0, known, own)).repeat(views)

    def check(self, data: Any) -> None:
        """Raise what :meth:`group` would, before anything is trained."""
        if self.instances is not None:
            data.check_group(data.train_labels, self.instances)

    def group(self, data: Any) -> None:
        """Let the data module read several samples of a class after one another."""
        if self.instances is not None:
            data.group(data.train_labels, self.instances)


def rows_of(z: Sequence[Tensor]) -> Tensor:
    """V x ``[B, D]`` of this process to ``[V * W * B, D]`` of all: one view after the other, however many there are."""
    return torch.cat([gather(x) for x in z])


def views_problem(setting: str, other: str, views: Sequence[Mapping[str, Any]]) -> str | None:
    """The sentence about a single view, where ``setting`` compares views; ``other`` is one that does not."""
    if sum(view.get("count", 1) for view in views) > 1:
        return None
    return (
        f"{setting} compares views of a sample and augmentation.views gives one; set its count to 2 or more "
        f"(augmentation.views.0.count=2), or {other}"
    )
