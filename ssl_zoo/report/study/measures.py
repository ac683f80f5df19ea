"""What is read from a finished run: a number of its metrics, of its summary, or of its curve.

A measure of a study names one of these and what it is of: ``{kNN: {last: knn/top1}}``; further keys are its options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Series = tuple[np.ndarray, np.ndarray]  # steps [N], values [N]


@dataclass
class Run:
    """A run of a sweep, as its folder tells it.

    Attributes:
        folder: Its own.
        state: finished, failed, interrupted, running.
        reason: Of the state.
        words: key -> value of its overrides.
        config: In plain containers.
        summary: What ``summary.json`` holds.
        series: By the columns of ``metrics.csv``.
        seconds: Of training.
    """

    folder: Path
    state: str = "finished"
    reason: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    seconds: float = 0.0


def last(run: Run, of: str) -> float | None:
    """The last value of a column, else the number of that name in the summary."""
    if of in run.series:
        return float(run.series[of][1][-1])
    found = run.summary.get(of)
    return float(found) if isinstance(found, (int, float)) else None


def gain(run: Run, of: str) -> float | None:
    """The last value less the first, which for kNN is that of the untrained network."""
    return float(run.series[of][1][-1] - run.series[of][1][0]) if of in run.series else None


def largest(run: Run, of: str) -> float | None:
    """The largest value of a column."""
    return float(np.nanmax(run.series[of][1])) if of in run.series else None


def mean(run: Run, of: str, skip: int = 1) -> float | None:
    """The mean of a column without its first rows, in which a machine warms up."""
    values = run.series[of][1][skip:] if of in run.series else np.array([])
    return float(values.mean()) if len(values) else None


def spikes(run: Run, of: str, factor: float = 3.0, window: int = 51) -> float | None:
    """How many steps have a value above ``factor`` times the median of the ``window`` steps around."""
    if of not in run.series:
        return None
    values = run.series[of][1]
    half = window // 2
    around = [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    return float((values > factor * np.array(around)).sum())


def judged(run: Run, of: str) -> float | None:
    """What the report at the end of a run measured of its network on frozen features: linear or knn, in percent."""
    card = run.config.get("card") or {}
    found = run.summary.get(card.get("name", ""))
    value = found.get(of) if isinstance(found, Mapping) else None
    return None if value is None else float(value)


def shared(run: Run, of: str, candidates: int | None = None) -> float | None:
    """A lower bound of what two views share, in nats: ``ln(candidates) - loss`` of InfoNCE, of the last tenth of steps.

    Candidates are the queue and the positive unless given: https://arxiv.org/abs/2005.10243 (Sec. 3.1).
    """
    count = candidates or 1 + int((run.config.get("method") or {}).get("queue_size") or 0)
    if of not in run.series or count < 2:
        return None
    values = run.series[of][1]
    return math.log(count) - float(values[-max(1, len(values) // 10) :].mean())


MEASURES: dict[str, Callable[..., float | None]] = {
    function.__name__: function for function in (last, gain, largest, mean, spikes, judged, shared)
}


def read(run: Run, how: Mapping[str, Any]) -> float | None:
    """A measure of a run; None: the run did not record it.

    Args:
        how: ``{last: knn/top1}``, with the options of the function after it.
    """
    (name, of), *options = how.items()
    value = MEASURES[name](run, of, **dict(options))
    return None if value is None or math.isnan(value) else value
