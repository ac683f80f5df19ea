"""A row of the table: how it is measured, what it is compared with, and the bar it must pass."""

from __future__ import annotations

import importlib.util
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ssl_zoo.benchmarks.timing import alternate, in_child, threads

INSTALL = "pip install ssl_zoo[bench]"
HOLDS = {">=": operator.ge, "<=": operator.le}


@dataclass
class Measured:
    """Repeated measurements of both sides, in the unit of the row.

    Args:
        ours, peer: One number a round; ``peer`` is None where there is nothing to compare with.
        extra: Further keys of the row.
    """

    ours: list[float]
    peer: list[float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def per_second(self, work: float) -> Measured:
        """Seconds into ``work`` items a second."""
        return self._map(lambda seconds: work / seconds)

    def times(self, factor: float) -> Measured:
        return self._map(lambda value: value * factor)

    def _map(self, change: Callable[[float], float]) -> Measured:
        peer = None if self.peer is None else [change(value) for value in self.peer]
        return Measured([change(value) for value in self.ours], peer, self.extra)


@dataclass(frozen=True)
class Run:
    """What a measuring function is told.

    Args:
        quick: Every size as small as it goes: shows that the row works, not how fast anything is.
        peer: Whether the other library is installed.
        cores: Threads of the row.
        root: A folder of JPEG files to read instead of generated ones.
    """

    quick: bool = False
    peer: bool = True
    cores: int = 1
    root: str | None = None

    def pick(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full

    def race(
        self,
        ours: Callable[[], Any],
        make_peer: Callable[[], Callable[[], Any]] | None = None,
        rounds: int = 7,
        after: Callable[[], Any] | None = None,
    ) -> Measured:
        """Alternate the two sides; seconds. ``make_peer`` imports the other library, and only if it is there."""
        sides = [ours] + ([make_peer()] if make_peer is not None and self.peer else [])
        seconds = alternate(sides, self.pick(rounds, 1), after)
        return Measured(seconds[0], seconds[1] if len(sides) > 1 else None)

    def child(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)`` in a fresh process; in this one in quick mode, where starting it would take longest."""
        return function(*args) if self.quick else in_child(function, *args)


@dataclass(frozen=True)
class Case:
    """One row.

    ``ratio`` depends on the bar. With ``>=``, or no bar, it says how many times better than the peer ours is (faster,
    or smaller); with ``<=`` it is ours as a multiple of the peer, for what cannot be better than the peer: an overhead
    or a share.

    Args:
        name: Of the row.
        measure: Called with a :class:`Run`.
        unit: More is better if it ends in ``/s``, else less is.
        peer: What ours is compared with, for the reader; None: nothing.
        needs: Module that the peer needs, if it is one of the optional ones.
        bar: ``">= 7"`` or ``"<= 1.03"``, for the ratio.
        cores: Threads of torch.
        note: What a reader must know to judge the number.
    """

    name: str
    measure: Callable[[Run], Measured]
    unit: str
    peer: str | None = None
    needs: str | None = None
    bar: str | None = None
    cores: int = 1
    note: str = ""


def measure(case: Case, quick: bool = False, root: str | None = None) -> dict[str, Any]:
    """Run one case.

    Returns:
        ``value`` and ``peer_value`` are medians in ``unit``, ``range`` and ``peer_range`` the extremes of ``rounds``
        measurements; ``ratio`` as :class:`Case` says; ``ok`` whether it passes ``bar``, None without a bar, without
        the peer and in quick mode. The machine and the versions stand in the file beside the rows.
    """
    there = case.needs is None or importlib.util.find_spec(case.needs) is not None
    cores = 1 if quick else case.cores  # threads that wait for one another on a busy machine are not quick
    began = time.perf_counter()
    with threads(cores):
        found = case.measure(Run(quick, there, cores, root))
    value = median(found.ours)
    peer_value = None if found.peer is None else median(found.peer)
    ratio = None if peer_value is None else _ratio(case, value, peer_value)
    return {
        "name": case.name,
        "value": value,
        "unit": case.unit,
        "peer": case.peer,
        "peer_value": peer_value,
        "ratio": ratio,
        "bar": case.bar,
        "ok": None if quick else judge(case.bar, ratio),
        "threads": cores,
        "quick": quick,
        "took_s": round(time.perf_counter() - began, 1),
        "rounds": len(found.ours),
        "range": [min(found.ours), max(found.ours)],
        "peer_range": None if found.peer is None else [min(found.peer), max(found.peer)],
        "note": case.note if there else f"{case.needs} is not installed: {INSTALL}",
        **found.extra,
    }


def _ratio(case: Case, value: float, peer: float) -> float:
    more_is_better = case.unit.endswith("/s")
    as_multiple = case.bar is not None and case.bar.startswith("<=")
    return value / peer if more_is_better or as_multiple else peer / value


def judge(bar: str | None, ratio: float | None) -> bool | None:
    """Whether a ratio passes; None without a bar or without a ratio."""
    if bar is None or ratio is None:
        return None
    sign, limit = bar.split()
    return bool(HOLDS[sign](ratio, float(limit)))
