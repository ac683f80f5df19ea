"""Samples held out in turn, class by class: for sets that are too small to hold a part out for good."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 5  # folds


def deal(labels: Tensor, seed: int = 0, most: int = MOST) -> Tensor:
    """In which fold each sample is held out.

    There are as many folds as the largest class has samples, at most ``most``. Every class keeps a sample in each
    training part; with no more samples than folds each of them is left out alone.

    Args:
        labels: ``[N]`` int64, all known.
        seed: Of the order within the classes.
        most: Folds at most, 2 or more.

    Returns:
        ``[N]`` int64 from 0 on; -1: never, because the sample's class has no other.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    fold = torch.full_like(labels, -1)
    count = min(int(labels.bincount().max()), most)
    for label in labels.unique():
        rows = order[labels[order] == label]
        if len(rows) > 1:
            # Classes begin at different folds, or the first folds would get all the spare samples.
            fold[rows] = (torch.arange(len(rows)) + label) % count
    return fold


def masks(labels: Tensor, seed: int = 0) -> list[Tensor]:
    """What each fold of :func:`deal` holds out, ``[N]`` bool; none where no class has two samples."""
    fold = deal(labels, seed)
    return [fold == i for i in fold[fold >= 0].unique()]
