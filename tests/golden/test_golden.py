"""Numbers of the authors' own code (or of the formula, where no code exists), recorded, against ours.

``pytest tests/golden --goldens DIR`` checks any other folder of such files. Every case of every file is a test; sizes,
hyper-parameters and random draws come from the files. A case without a check fails, and so does a recorded result
that the check of its case does not look at, unless ``DIFFERS`` gives the reason.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden import checks, differs
from tests.golden.cases import Arrays, Case, discover, first_match
from tests.pool import GlooPool

# Every module of checks counts because it exists; it may give reasons of its own (DIFFERS) too.
FOUND = pkgutil.iter_modules(checks.__path__)
MODULES = [importlib.import_module(f"{checks.__name__}.{found.name}") for found in FOUND]
DIFFERS = {key: reason for module in (differs, *MODULES) for key, reason in getattr(module, "DIFFERS", {}).items()}


def check_of(case: Case) -> Callable[..., None] | None:
    """The check of the first pattern that fits, in the tables of all modules."""
    tables = [getattr(module, "CHECKS", {}).get(case.method, {}) for module in MODULES]
    return next((check for table in tables if (check := first_match(table, case.name))), None)


def test_golden(case: Case, pools: Callable[[int], GlooPool]) -> None:
    check = check_of(case)
    if check is None and (reason := first_match(DIFFERS, f"{case.method}/{case.name}")):
        print(f"{case} is not checked: {reason}")
        return
    assert check, f"{case.file}: case {case.name!r} of method {case.method!r} has no check in tests/golden/checks"
    entry, arrays, results = case.load()
    run(check, entry, arrays, pools)
    assert arrays.read & results, f"{case.file}: the check of case {case.name!r} looked at none of its results"
    for name in sorted(results - arrays.read):
        reason = first_match(DIFFERS, f"{case.method}/{case.name}/{name}")
        assert reason, f"{case.file}: case {case.name!r}: no check looks at the recorded result {name!r}"
        print(f"{name} differs: {reason}")
    if case.has_its_own_entry:
        unread = without_reason(case.method, entry["hyperparameters"].unread(arrays.sizes()))
        assert not unread, f"{case.file}: the check of case {case.name!r} does not read {', '.join(unread)}"


@pytest.mark.slow
def test_every_hyperparameter_that_cases_share_is_read(together: list[Case], pools: Callable[[int], GlooPool]) -> None:
    """A file that has one table for all its cases: each number is read by the check of one of them at least."""
    table, sizes = None, set()
    for case in together:
        if (check := check_of(case)) is None:
            assert first_match(DIFFERS, f"{case.method}/{case.name}"), case
            return
        entry, arrays, _ = case.load()
        table = entry["hyperparameters"] = table or entry["hyperparameters"]
        run(check, entry, arrays, pools)
        sizes |= arrays.sizes()
    assert table is not None
    unread = without_reason(together[0].method, table.unread(sizes))
    assert not unread, f"{together[0].file}: no check reads {', '.join(unread)}"


def without_reason(method: str, unread: list[str]) -> list[str]:
    return [x for x in unread if not first_match(DIFFERS, f"{method}/hyperparameters/{x.partition('=')[0]}")]


def run(check: Callable[..., None], entry: Any, arrays: Arrays, pools: Callable[[int], GlooPool]) -> None:
    check(entry, arrays, **({"pools": pools} if "pools" in inspect.signature(check).parameters else {}))


def test_a_case_without_a_check_is_found_and_has_none(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "unheard_of.npz").touch()
    (case,) = discover(tmp_path)
    assert (str(case), case.method, check_of(case)) == ("unheard_of/all", "unheard_of", None)
