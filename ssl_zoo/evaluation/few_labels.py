"""Accuracy with a few labels a class: what features are worth to somebody who labels ten samples and not thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.evaluation.linear import PENALTY, fit
from ssl_zoo.features import Features, accuracy, labelled

COUNTS = (1, 5, 10)  # labels a class
DRAWS = 10  # of the samples that are labelled
CLASSES = 30  # auto: up to so many, which takes about a second; the work grows with their square


class Score(NamedTuple):
    """Top-1 in percent over the draws."""

    mean: float
    spread: float  # standard deviation


def counts_of(wanted: str | Sequence[int] | None, classes: int | None) -> tuple[int, ...]:
    """The numbers of labels that ``few_labels`` asks for: ``auto`` is 1, 5 and 10, and nothing above 30 classes."""
    if wanted == "auto":
        return COUNTS if classes is not None and classes <= CLASSES else ()
    return tuple(sorted({int(count) for count in wanted or ()}))


@torch.no_grad()
def few_label_top1(
    train: Features, test: Features, classes: int, counts: Sequence[int] = COUNTS, device: torch.device | str = "cpu"
) -> dict[int, Score]:
    """Logistic regression on the features of a few labelled samples, ten times, each time on others.

    Features lose their mean over the training set, which needs no labels, and are scaled to unit length: raw pixels
    gain by it as networks do. The penalty is one for all, because so few labels leave none to choose it on.

    Args:
        train: Of the training set. The samples of a draw are among those of the same draw with more labels.
        test: Of the validation set.
        classes: Number of classes.
        counts: Labels a class; those that the smallest class does not have are left out.
        device: Where to compute.

    Returns:
        Score by number of labels a class.
    """
    x, labels = (t.to(device) for t in labelled(_unit(train.features, train.features), train.labels))
    y, wanted = (t.to(device) for t in labelled(_unit(test.features, train.features), test.labels))
    smallest = int(labels.bincount(minlength=classes).min())
    found = {}
    for count in (count for count in counts if count <= smallest):
        top1 = []
        for draw in range(DRAWS):
            rows = balanced_rows(labels.cpu(), count * classes, seed=draw).to(x.device)
            start = x.new_zeros(x.shape[1] + 1, classes)
            head = fit(x[rows], labels[rows], PENALTY / len(rows), start)
            top1.append(accuracy((y @ head[:-1] + head[-1]).argmax(1), wanted))
        spread, mean = torch.std_mean(torch.tensor(top1, dtype=torch.float64))
        found[count] = Score(mean.item(), spread.item())
    return found


def _unit(features: Tensor, of: Tensor) -> Tensor:
    return F.normalize(features.float() - of.float().mean(0), dim=1)
