"""From the series of files to a training and a validation source."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.data.series.files import Labelled, padded
from ssl_zoo.data.series.source import Series
from ssl_zoo.data.series.standardise import KINDS, standardised, statistics
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError, nearest


def class_names(labels: list[str]) -> list[str]:
    """Labels once each: numbers in their order, words in the alphabet's."""
    names = set(labels)
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def numbered(labels: list[str], classes: list[str], where: str) -> Tensor:
    """``[N]`` int64.

    Raises:
        ConfigError: For a label that no training series has.
    """
    position = {name: i for i, name in enumerate(classes)}
    for i, label in enumerate(labels, 1):
        if label not in position:
            raise ConfigError(
                f"{where}: series {i} has the label {label!r}, which no training series has: {nearest(label, classes)}"
            )
    return torch.tensor([position[label] for label in labels])


def source_splits(train: Labelled, val: Labelled | None, normalize: str, why: str, where: str) -> Splits:
    """Both parts, padded to the longest series of either and standardised by the training part.

    Args:
        normalize: A key of :data:`KINDS`.
        why: Said behind that kind, in the line of the decision.
        where: What to call the validation part in messages.
    """
    _check_alike(train, val, where)
    length = max(len(one) for part in (train, val) if part for one in part.series)
    classes = None if train.labels is None else class_names(train.labels)
    stored = padded(train.series, length)
    found = statistics(stored, normalize)
    decisions = [f"series: {KINDS[normalize]}{why}"]
    lengths = [len(one) for one in train.series]
    if min(lengths) < length:
        found_lengths = f"{min(lengths)} to {max(lengths)}"
        decisions.append(f"series of {found_lengths} steps are filled up with missing steps to {length}")

    def made(part: Labelled, values: Tensor, where: str) -> Series:
        labels = None if part.labels is None or classes is None else numbered(part.labels, classes, where)
        return Series(standardised(values, found).float(), labels, classes, decisions, found)

    return Splits(made(train, stored, "train"), None if val is None else made(val, padded(val.series, length), where))


def _check_alike(train: Labelled, val: Labelled | None, where: str) -> None:
    if val is not None and val.series[0].shape[1] != train.series[0].shape[1]:
        raise ConfigError(
            f"{where}: series of {val.series[0].shape[1]} channels, and the training series have "
            f"{train.series[0].shape[1]}"
        )
