"""Which parameters have no weight decay, and which take no trust ratio."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key
from tests.golden.recipes.parameters import Predicate, meant
from tests.golden.recipes.probe import adapts
from tests.golden.recipes.rates import Groups
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unmapped


@field("exclusions")
def exclusions(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    yield from by_key("exclusions", value, _EXCLUSIONS, (Groups(composed), composed, value))


def _decay(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    groups, composed, value = asked
    excluded, kept = meant(wanted), meant(str(value.get("decayed_too", "none")))
    if excluded is None or kept is None:
        yield unmapped(subject, wanted)
        return
    total = composed.progress(0).total
    steps = [groups.at(composed.progress(step)) for step in (0, total // 2, total - 1)]
    free = {i for i in range(len(steps[0])) if all(step[i].get("weight_decay", 0.0) == 0 for step in steps)}
    if len(free) == len(steps[0]) and composed.recorded.value("weight_decay") == 0:
        return  # no decay that anything could be excluded from
    yield from _told(subject, groups, free, lambda p: excluded(p) and not kept(p), "weight decay")


def _decayed_too(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    """What one would expect to be excluded and is not: told apart under ``decay``; here only that it is there."""
    groups, _, _ = asked
    kept = meant(wanted)
    if kept is None:
        yield unmapped(subject, wanted)


def _adaptation(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    groups, composed, value = asked
    same = re.fullmatch(r"the same( \([^)]*\))?", wanted)
    excluded = meant(value["decay"] if same else wanted)
    if excluded is None:
        yield unmapped(subject, wanted)
        return
    kind, options = type(groups.bound.optimizer), groups.at(composed.progress(0))
    plain = {i for i, group in enumerate(options) if not adapts(kind, group)}
    yield from _told(subject, groups, plain, excluded, "trust ratio")


def _told(subject: str, groups: Groups, free: set[int], excluded: Predicate, what: str) -> Iterator[str]:
    """Parameters on the wrong side, the first of each side by name."""
    without = [p.name for p in groups.parameters if p.group in free and not excluded(p)]
    within = [p.name for p in groups.parameters if p.group not in free and excluded(p)]
    for names, told in ((without, f"have no {what} and should"), (within, f"have {what} and should not")):
        if names:
            yield f"{subject}: {len(names)} parameters {told}: {', '.join(names[:3])}"


_EXCLUSIONS: dict[str, Reader] = {"decay": _decay, "decayed_too": _decayed_too, "adaptation": _adaptation}
