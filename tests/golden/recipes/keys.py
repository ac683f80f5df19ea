"""Recorded values that are tables: each key has a reader, and a key without one cannot be mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.golden.recipes.registry import unequal, unmapped

# (subject, recorded value, what is asked) -> one sentence for each difference.
Reader = Callable[[str, Any, Any], Iterator[str]]
NONE = "none"  # certainly nothing of the kind
NOTES = ("note", "zero_init_residual_of_the_released_code")  # words about a value beside them


def by_key(field: str, value: Any, readers: Mapping[str, Reader], asked: Any) -> Iterator[str]:
    """Compare a table key by key; a value of None is one that nobody knows."""
    if not isinstance(value, Mapping):
        yield unmapped(field, value)
        return
    for key, wanted in value.items():
        if key in NOTES or wanted is None:
            continue
        reader = readers.get(key)
        if reader is None:
            yield unmapped(f"{field}.{key}", wanted)
        else:
            yield from reader(f"{field}.{key}", wanted, asked)


def same(ours: Any, recorded: Any, tolerance: float = 1e-9) -> bool:
    """Equal, numbers to ``tolerance`` relatively; a truth value is no number."""
    if isinstance(recorded, Mapping) or isinstance(ours, Mapping):
        both = isinstance(recorded, Mapping) and isinstance(ours, Mapping) and recorded.keys() == ours.keys()
        return both and all(same(ours[key], recorded[key], tolerance) for key in recorded)
    if _listed(ours) or _listed(recorded):
        both = _listed(ours) and _listed(recorded) and len(ours) == len(recorded)
        return both and all(same(a, b, tolerance) for a, b in zip(ours, recorded, strict=True))
    if _counts(ours) and _counts(recorded):
        return abs(ours - recorded) <= tolerance * max(abs(ours), abs(recorded))
    return type(ours) is type(recorded) and bool(ours == recorded)


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _counts(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def sides(size: Any) -> Any:
    """Pixels of a square as one number, of another rectangle as a list."""
    return size if isinstance(size, int) or size is None else size[0] if len(set(size)) == 1 else list(size)


def equal_to(read: Callable[[Any], Any], tolerance: float = 1e-9) -> Reader:
    """A reader that wants what ``read`` finds in what is asked."""

    def reader(subject: str, wanted: Any, asked: Any) -> Iterator[str]:
        ours = read(asked)
        if not same(ours, wanted, tolerance):
            yield unequal(subject, ours, wanted)

    return reader
