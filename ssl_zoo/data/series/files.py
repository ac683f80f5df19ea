"""Files of labelled series: ``.tsv`` of the UCR archive, ``.ts`` of the UEA archive, and tables of numbers.

A line that cannot be read is an error with its number: nothing is guessed of what a set of a few hundred series holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.errors import ConfigError

MISSING = ("", "?", "nan")  # words of a number that is not there


class Labelled(NamedTuple):
    """Series as a file has them."""

    series: list[Tensor]  # [T, C] each, of any length
    labels: list[str] | None  # None: unlabelled


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, and their numbers from 1.

    Raises:
        ConfigError: If it cannot be read, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8; wanted numbers in lines") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    yield from ((i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def parsed(words: Sequence[str], where: str) -> list[float]:
    """Numbers; NaN where one is missing.

    Raises:
        ConfigError: For a word that is no number, and for an infinite one, with its position.
    """
    try:
        found = [float("nan") if word.strip().lower() in MISSING else float(word) for word in words]
    except ValueError:
        position = next(i for i, word in enumerate(words, 1) if not _numeric(word))
        raise ConfigError(f"{where}: value {position} is {words[position - 1]!r}, wanted a number or NaN") from None
    if np.isinf(found).any():
        raise ConfigError(f"{where}: value {int(np.isinf(found).argmax()) + 1} is infinite, wanted a number or NaN")
    return found


def _numeric(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.strip().lower() in MISSING
    return True


def read_ts(path: Path) -> Labelled:
    """``.ts``: a head of ``@key value`` lines, after ``@data`` a series a line, channels ``:`` values ``,``.

    https://www.aeon-toolkit.org/en/stable/api_reference/file_specifications/ts.html; the label follows the last ``:``.

    Raises:
        ConfigError: If a line has other channels than the head or the first one says, or channels of unequal length.
    """
    head: dict[str, str] = {}
    rows = lines(path)
    for _, line in rows:
        key, _, value = line.partition(" ")
        if key.lower() == "@data":
            break
        if not line.startswith(("#", "%")):
            head[key.lower()] = value.strip()
    else:
        raise ConfigError(f"{path}: has no line @data, after which the series stand; wanted a .ts file")
    if head.get("@timestamps", "false").lower() == "true":
        raise ConfigError(f"{path}: has time stamps, which are not read; wanted @timeStamps false")
    if head.get("@targetlabel", "false").lower() == "true":
        raise ConfigError(f"{path}: has numbers for labels (@targetlabel), which no method here learns; wanted classes")
    labelled = head.get("@classlabel", "false").lower().startswith("true")
    series: list[Tensor] = []
    labels: list[str] = []
    for number, line in rows:
        where = f"{path} line {number}"
        parts = line.split(":")
        if labelled:
            labels.append(parts.pop().strip())
        channels = [parsed(part.split(","), f"{where}, channel {c}") for c, part in enumerate(parts, 1)]
        series.append(_stacked(channels, where, series[0].shape[1] if series else _said(head, "@dimensions")))
    return _some(series, labels if labelled else None, path)


def _said(head: dict[str, str], key: str) -> int | None:
    return int(head[key]) if head.get(key, "").isdigit() else None


def _stacked(channels: list[list[float]], where: str, wanted: int | None) -> Tensor:
    if wanted is not None and len(channels) != wanted:
        raise ConfigError(f"{where}: {len(channels)} channels, wanted {wanted} as in the lines before")
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1:
        raise ConfigError(f"{where}: channels of {min(lengths)} to {max(lengths)} values, wanted equally many in each")
    if not lengths:
        raise ConfigError(f"{where}: a label and no values")
    return torch.tensor(channels, dtype=torch.float64).T.contiguous()


def read_table(path: Path, delimiter: str, label: str, header: bool = False) -> Labelled:
    """A series of one channel a line, equally many numbers in each, missing ones as NaN (``.tsv`` of the UCR archive).

    Args:
        label: ``first`` | ``last`` | ``none``: where it stands.
        header: Whether the first line names the columns.

    Raises:
        ConfigError: For a line with more or fewer values than the first.
    """
    series: list[Tensor] = []
    labels: list[str] = []
    rows = lines(path)
    if header:
        next(rows, None)
    for number, line in rows:
        words = line.split(delimiter)
        if label != "none":
            labels.append(words.pop(0 if label == "first" else -1).strip())
        values = torch.tensor(parsed(words, f"{path} line {number}"), dtype=torch.float64)
        if series and len(values) != len(series[0]):
            raise ConfigError(
                f"{path} line {number}: {len(values)} values, wanted {len(series[0])} as in the first one (what a "
                "short series lacks is written NaN)"
            )
        series.append(values[:, None])
    return _some(series, labels if label != "none" else None, path)


def _some(series: list[Tensor], labels: list[str] | None, path: Path) -> Labelled:
    if not series or not max(len(one) for one in series):
        raise ConfigError(f"{path}: has no series")
    for i, one in enumerate(series, 1):
        if not len(one) or one.isnan().all():
            raise ConfigError(f"{path}: series {i} has no values; take it out")
    return Labelled(series, labels)


def padded(series: Sequence[Tensor], length: int) -> Tensor:
    """Series ``[t, C]`` as ``[N, length, C]``, with NaN behind those that are shorter."""
    out = torch.full((len(series), length, series[0].shape[1]), float("nan"), dtype=torch.float64)
    for row, one in zip(out, series, strict=True):
        row[: len(one)] = one
    return out
