"""Accuracy without a validation set: every training sample is judged by the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.evaluation import folds
from ssl_zoo.evaluation.linear import linear_probe
from ssl_zoo.features import accuracy, extract_on, labelled
from ssl_zoo.knn import leave_one_out

SAMPLES = 2_000  # judged at most, because each fold is a fit of its own
SWEEP = (1.0, 0.1, 0.01)  # l2


class Measured(NamedTuple):
    """Top-1 in percent, and how it was taken."""

    linear: float
    knn: float
    images: int  # that were judged: those of classes with two or more
    folds: int  # of the linear probe
    k: int  # neighbours that voted


def possible(datamodule: Any) -> bool:
    """Whether some class has two labelled training samples."""
    labels = datamodule.train_labels
    return labels is not None and bool((labels[labels >= 0].bincount() > 1).any())


def compare(
    module: Any, datamodule: Any, device: torch.device | str = "cpu", k: int = 20, temperature: float = 0.07
) -> Measured:
    """:func:`judge` on the features of the labelled training samples, at most 2,000 of them.

    Args:
        module: With ``embed``; moved to ``device`` and back.
        datamodule: For which this is :func:`possible`.
        device: Where features are made and judged.
        k, temperature: Of the kNN.
    """
    rows = balanced_rows(datamodule.train_labels, SAMPLES)
    found = extract_on(module, datamodule.train_eval_loader(rows), device)
    return judge(*labelled(*found[:2]), datamodule.info.classes, k, temperature, device=device)


@torch.no_grad()
def judge(
    x: Tensor,
    labels: Tensor,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    sweep: Sequence[float] = SWEEP,
    device: torch.device | str = "cpu",
) -> Measured:
    """kNN that leaves one out, and a linear probe that holds out folds (:func:`ssl_zoo.evaluation.folds.deal`).

    Args:
        x: ``[N, F]`` features.
        labels: ``[N]`` in [0, classes), two of one class at least.
        classes: Number of classes.
        k: Neighbours that vote; no more than the largest class has, for the others would only vote against it.
        temperature: Of the votes.
        sweep: Penalties of the probe, chosen in every fold anew and without it.
        device: Where to compute.
    """
    x, parts = x.to(device), folds.masks(labels)
    known = torch.stack(parts).any(0)  # classes of one sample teach, and cannot be asked
    k = min(k, int(labels.bincount().max()) - 1)
    near = leave_one_out(x, labels, classes, k, temperature).cpu()
    top1 = [
        linear_probe(x[~held], labels[~held], x[held], labels[held], sweep, classes, device=device)["top1"]
        for held in parts
    ]
    sizes = [int(held.sum()) for held in parts]
    line = sum(score * size for score, size in zip(top1, sizes, strict=True)) / sum(sizes)
    return Measured(line, accuracy(near[known], labels[known]), sum(sizes), len(parts), k)
