"""Ranges as types: ``temperature: Positive`` refuses -1 with a sentence before anything is built (signatures.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Which numbers an argument takes.

    Args:
        words: What follows "a number" in a message.
        holds: Whether a number is one of them; nan is none.
    """

    words: str
    holds: Callable[[float], bool]


Size = Annotated[int, Range("of at least 1", lambda x: x >= 1)]  # of a layer, a queue, a period
Count = Annotated[int, Range("of at least 0", lambda x: x >= 0)]
Limit = Annotated[int, Range("of at least 1, or -1 for none", lambda x: x >= 1 or x == -1)]
Positive = Annotated[float, Range("above 0", lambda x: x > 0)]  # a temperature
NonNegative = Annotated[float, Range("of at least 0", lambda x: x >= 0)]  # the weight of a loss
Share = Annotated[float, Range("from 0 to 1", lambda x: 0 <= x <= 1)]  # a momentum
Rate = Annotated[float, Range("from 0 to below 1", lambda x: 0 <= x < 1)]  # of dropout, of label smoothing
Part = Annotated[float, Range("between 0 and 1", lambda x: 0 < x < 1)]  # of a data set, the rest not empty
