"""Whole recipes: what the authors' code does in a published run, field by field, against what we compose for it.

``pytest tests/golden --recipes DIR`` compares any other folder of such files. Every field of every file is a test. A
field that nothing compares fails, and so does a difference, unless ``WAIVERS`` gives a reason for it. What is recalled
from a paper, unknown, or of a run without public code is reported as a warning.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.recorded import Recorded, recorded_in
from tests.golden.recipes.registry import comparators, differences, subject
from tests.golden.recipes.waivers import NEVER, SHARE, WAIVERS, waived

_last: list[Composed] = []  # of the file whose fields are compared now


def composed(recorded: Recorded) -> Composed:
    """Built once for all fields of a file, and let go with the last of them."""
    if not _last or _last[0].recorded is not recorded:
        _last[:] = [Composed(recorded)]
    return _last[0]


def test_field(recorded: Recorded, name: str) -> None:
    soft = recorded.soft(name)
    if recorded.value(name) is None and (soft or name == "expected"):
        return
    try:
        found = differences(name, recorded, composed(recorded))
    except Exception as error:
        if not soft:
            raise
        found = [f"{name}: cannot be compared ({type(error).__name__}: {error})"]
    left = [sentence for sentence in found if not waived(recorded.name, subject(sentence))]
    if soft and left:
        warnings.warn(f"{recorded}: {'; '.join(left)} (recalled, unknown or unreleased)", stacklevel=1)
        return
    assert not left, "\n".join([f"{recorded} ({' '.join(composed(recorded).words)}) differs:", *left])


def test_waivers_are_needed(recorded: Recorded) -> None:
    wanted = {key: reason for key, reason in WAIVERS.items() if key[0] == recorded.name}
    names = {subject.partition(".")[0] for _, subject in wanted}
    found = {
        waived(recorded.name, subject(sentence))
        for name in names
        for sentence in differences(name, recorded, composed(recorded))
    }
    idle = wanted.keys() - found
    assert not idle, f"waivers for what does not differ: {sorted(idle)}"


def test_waivers_are_few_and_have_reasons(recipes: Path) -> None:
    runs = {recorded.name: recorded for recorded in recorded_in(recipes)}
    fields = sum(len(recorded.fields) for recorded in runs.values())
    used = {key: reason for key, reason in WAIVERS.items() if key[0] in runs}
    assert len(used) <= SHARE * fields, f"{len(used)} waivers for {fields} fields: {Counter(k[1] for k in used)}"
    assert not [key for key in WAIVERS if key[1].partition(".")[0] in NEVER]
    assert not [key for key, reason in WAIVERS.items() if len(reason.split()) < 3]


def test_every_recorded_field_has_a_comparator(recipes: Path) -> None:
    names = {name for recorded in recorded_in(recipes) for name in recorded.fields}
    assert names <= comparators().keys(), sorted(names - comparators().keys())


def test_an_unknown_field_is_a_difference() -> None:
    recorded = recorded_in(Path(__file__).parent / "data" / "recipes")[0]
    assert differences("unheard_of", recorded, Composed(recorded)) == [
        "unheard_of: no function of tests/golden/recipes/fields compares it"
    ]


def test_a_waiver_covers_its_field_and_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WAIVERS, ("run", "clip"), "a reason of words")
    monkeypatch.setitem(WAIVERS, ("run", "ema.when"), "a reason of words")
    assert waived("run", "clip.mode") == ("run", "clip")
    assert waived("run", "ema.when") == ("run", "ema.when")
    assert waived("run", "ema.momentum") is None and waived("other", "clip") is None
