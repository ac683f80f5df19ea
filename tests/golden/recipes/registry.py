"""Which function compares which field of a recorded recipe, and the sentences in which it tells what differs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.golden.recipes import fields

if TYPE_CHECKING:
    from tests.golden.recipes.composed import Composed
    from tests.golden.recipes.recorded import Recorded

# (recorded value, recorded run, what we compose) -> one sentence for each difference, that begins with the field, or
# with "field.key": a waiver may name either.
Comparator = Callable[[Any, "Recorded", "Composed"], Iterator[str]]
_COMPARATORS: dict[str, Comparator] = {}


def field(name: str) -> Callable[[Comparator], Comparator]:
    """Decorator: this function compares the field ``name``."""

    def add(compare: Comparator) -> Comparator:
        _COMPARATORS[name] = compare
        return compare

    return add


@cache
def comparators() -> dict[str, Comparator]:
    for found in pkgutil.iter_modules(fields.__path__):
        importlib.import_module(f"{fields.__name__}.{found.name}")
    return _COMPARATORS


def differences(name: str, recorded: Recorded, composed: Composed) -> list[str]:
    """Everything in which a field differs, each in a sentence that begins with the field."""
    compare = comparators().get(name)
    if compare is None:
        return [f"{name}: no function of tests/golden/recipes/fields compares it"]
    found = compare(recorded.value(name), recorded, composed)
    return [line if line.startswith((f"{name}:", f"{name}.")) else f"{name}: {line}" for line in found]


def subject(sentence: str) -> str:
    """``field`` or ``field.key``, of which a sentence speaks."""
    return sentence.partition(":")[0]


def unequal(subject: str, ours: Any, recorded: Any) -> str:
    return f"{subject}: {ours!r}, recorded {recorded!r}"


def unmapped(subject: str, recorded: Any) -> str:
    return f"{subject}: cannot map {recorded!r}"
