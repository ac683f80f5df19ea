"""Errors that users read: what is wrong, what was found, what is wanted, and the nearest fix."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable


class ConfigError(Exception):
    """A wrong input, told in one message; the command line prints it without a traceback and exits with 1."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``did you mean X?`` for a misspelt name, or the list of what there is when nothing is close."""
    known = sorted(set(map(str, names)))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(known)}" if known else "there are none"


def require(
    key: str, got: str | None, names: Iterable[str | None], error: Callable[[str], Exception] = ValueError
) -> None:
    """Raise the ``error`` that says what ``key`` got and what is near, unless it is one of ``names``."""
    known = list(names)
    if got not in known:
        words = [name for name in known if name is not None]
        raise error(f"{key}={got}: {nearest(str(got), words)}{', or null' if None in known else ''}")
