"""One long series in a table: its training part in pieces, and the whole of it for what is judged step by step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from ssl_zoo.data.series.files import lines, padded, parsed
from ssl_zoo.data.series.source import Series
from ssl_zoo.data.series.standardise import standardised, statistics
from ssl_zoo.data.source import Splits
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.ranges import Size

SHARES = (0.6, 0.2, 0.2)  # of the steps, for training, validation and test
# What a date says, as ``_get_time_features`` of TS2Vec's ``datautils.py``.
TIMES = ("minute", "hour", "weekday", "day", "day of the year", "month", "week")


class LongSeries(Series):
    """The training part of a series in pieces of equal length.

    Args:
        whole: ``[T, C]``, standardised.
        parts: Steps for training, validation and test: the first, the next, the last.
        targets: Columns that are predicted.
        found: Mean and deviation ``[C]``.
        piece: Steps of a piece at least, where there are so many.
        anomalous: ``[T]`` bool: what is to be found; None: nothing.
    """

    def __init__(
        self,
        whole: Tensor,
        parts: Sequence[int],
        targets: slice,
        found: tuple[Tensor, Tensor],
        piece: int,
        anomalous: Tensor | None = None,
    ) -> None:
        number = max(parts[0] // piece, 1)
        told = f"the first {parts[0]:,} of {len(whole):,} steps are trained on, in {number} piece(s)"
        kind = "each channel is standardised by its mean and deviation in these"
        pieces = whole[: parts[0]].tensor_split(number)
        super().__init__(padded(pieces, len(pieces[0])), None, None, [told, kind], found)
        self.whole = whole
        self.parts = tuple(parts)
        self.targets = targets
        self.anomalous = anomalous


def forecast(
    piece: Size = 3000,
    parts: Sequence[float] = SHARES,
    target: str | None = None,
    covariates: bool = True,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """A table with a date first (ETT), or without one, of which the next steps are predicted.

    Standardised by the training part, as ``load_forecast_csv`` of TS2Vec's ``datautils.py``.

    Args:
        piece: The training part is cut into pieces of about so many steps.
        parts: For training, validation and test: shares, or numbers of steps (ETTh: 8640, 2880, 2880).
        target: The one column that is used; None: all.
        covariates: Whether what a date says (minute, hour, weekday, day, day of the year, month, week) goes along.
        root: The ``.csv`` file.
        download: Not possible.

    Raises:
        ConfigError: If the file or the parts cannot be used.
    """
    file = _file(root)
    names, rows = _table(file)
    dates = names[0].lower() == "date" or not rows[0][1][0].replace(".", "").lstrip("-").isdigit()
    columns = names[1:] if dates else names
    if target is not None and target not in columns:
        raise ConfigError(f"data.source.target={target}: {file} has no such column: {nearest(target, columns)}")
    chosen = [names.index(target)] if target else list(range(len(names) - len(columns), len(names)))
    numbers = [parsed([words[i] for i in chosen], f"{file} line {line}") for line, words in rows]
    values = torch.tensor(numbers, dtype=torch.float64)
    added = torch.zeros(len(values), 0, dtype=torch.float64)
    if dates and covariates:
        added = torch.tensor([_times(words[0], f"{file} line {line}") for line, words in rows], dtype=torch.float64)
    whole, steps = torch.cat([added, values], 1), _steps(parts, len(values))
    found = statistics(whole[None, : steps[0]], "channel")
    assert found is not None
    made = standardised(whole[: sum(steps)], found)
    return Splits(LongSeries(made, steps, slice(added.shape[1], None), found, piece), None)


def anomalies(label: str = "is_anomaly", piece: Size = 3000, root: str | None = None, download: bool = False) -> Splits:
    """A series with a column that says which steps are no normal ones: ``ROOT/*_TRAIN.csv`` and ``*_TEST.csv``.

    Args:
        label: The column of 0 and 1; a column ``timestamp`` or ``date`` is not used.
        piece: The training part is cut into pieces of about so many steps.
        root: The folder; or one ``.csv`` file, of which the first half is trained on.
        download: Not possible.

    Raises:
        ConfigError: If a file cannot be used.
    """
    path = None if root is None else Path(os.path.expanduser(str(root)))
    if path is None or not path.exists():
        raise ConfigError(f"data.root={root}: wanted a folder with *_TRAIN.csv and *_TEST.csv, or one .csv file")
    files = [path] if path.is_file() else [*sorted(path.glob("*_TRAIN.csv"))[:1], *sorted(path.glob("*_TEST.csv"))[:1]]
    if len(files) != 2 and not path.is_file():
        raise ConfigError(f"data.root={root}: wanted *_TRAIN.csv and *_TEST.csv in it; one of them is not there")
    parts = [_labelled(file, label) for file in files]
    values, flags = (torch.cat(list(each)) for each in zip(*parts, strict=True))
    train = len(parts[0][0]) if len(parts) == 2 else len(values) // 2
    found = statistics(values[None, :train], "channel")
    assert found is not None
    steps = (train, 0, len(values) - train)
    return Splits(LongSeries(standardised(values, found), steps, slice(0, None), found, piece, flags), None)


def _file(root: str | None) -> Path:
    path = None if root is None else Path(os.path.expanduser(str(root)))
    if path is None or not path.is_file():
        raise ConfigError(f"data.root={root}: wanted the .csv file of a series, its columns named in the first line")
    return path


def _table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns; number and words of each line."""
    rows = [(number, [word.strip() for word in line.split(",")]) for number, line in lines(file)]
    if len(rows) < 2:
        raise ConfigError(f"{file}: has no rows; wanted a line of names and one for each step")
    names = rows[0][1]
    for number, words in rows[1:]:
        if len(words) != len(names):
            raise ConfigError(f"{file} line {number}: {len(words)} values, and there are {len(names)} columns")
    return names, rows[1:]


def _labelled(file: Path, label: str) -> tuple[Tensor, Tensor]:
    """``[T, C]`` and ``[T]`` bool."""
    names, rows = _table(file)
    if label not in names:
        raise ConfigError(f"data.source.label={label}: {file} has no such column: {nearest(label, names)}")
    kept = [i for i, name in enumerate(names) if name != label and name.lower() not in ("timestamp", "date")]
    numbers = [parsed([words[i] for i in kept], f"{file} line {line}") for line, words in rows]
    flags = [parsed([words[names.index(label)]], f"{file} line {line}")[0] for line, words in rows]
    return torch.tensor(numbers, dtype=torch.float64), torch.tensor(flags) > 0


def _times(word: str, where: str) -> list[float]:
    try:
        date = datetime.fromisoformat(word.replace("/", "-"))
    except ValueError:
        raise ConfigError(
            f"{where}: {word!r} is no date, wanted 2016-07-01 00:00:00; or data.source.covariates=false "
            "and a first column of numbers"
        ) from None
    times = date.timetuple()
    return [float(x) for x in (date.minute, date.hour, times.tm_wday, date.day, times.tm_yday, date.month,
                               date.isocalendar()[1])]  # fmt: skip


def _steps(parts: Sequence[float], total: int) -> tuple[int, int, int]:
    """Training, validation and test."""
    if len(parts) != 3 or min(parts) <= 0 or not (min(parts) >= 1 or sum(parts) <= 1 + 1e-9):
        raise ConfigError(
            f"data.source.parts={list(parts)}: wanted three shares of at most 1 together, or three numbers of steps"
        )
    scale = 1 if min(parts) >= 1 else total
    ends = [int(round(scale * sum(parts[: i + 1]), 6)) for i in range(3)]  # not 0.6 + 0.2 = 0.7999
    found = ends[0], ends[1] - ends[0], ends[2] - ends[1]
    if min(found) < 2 or ends[2] > total:
        told = " + ".join(map(str, found))
        raise ConfigError(f"data.source.parts={list(parts)}: {told} steps, and there are {total}; 2 in each at least")
    return found
