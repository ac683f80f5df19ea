"""The grammar of recorded sentences: phrases that are known, each with the question that it asks of our objects.

A sentence is read from the left. What no phrase takes up and is no filler cannot be mapped, which is a difference: a
sentence of another meaning does not pass because some of its words are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.golden.recipes.registry import unmapped

# (match, what is asked) -> what differs, in words; None: nothing.
Question = Callable[[re.Match[str], Any], str | None]
Phrase = tuple[str, Question | None]
FILLERS = {"of", "the", "a", "an", "in", "to", "with", "and", "for", "is", "are", "it", "its", "one"}
_WORD = re.compile(r"[^\s,;:()\[\]]+")


class Grammar:
    """Phrases as regular expressions, each with a question or None: words that say nothing of ours."""

    def __init__(self, *phrases: Phrase) -> None:
        self.phrases = [(re.compile(pattern, re.IGNORECASE), ask) for pattern, ask in phrases]

    def read(self, text: str) -> tuple[list[tuple[re.Match[str], Question | None]], list[str]]:
        """The phrases of a text in order, and the words that belong to none."""
        found, unknown, place = [], [], 0
        while place < len(text):
            best = self._longest(text, place)
            if best is not None:
                found.append(best)
                place = best[0].end()
            elif word := _WORD.match(text, place):
                unknown += [] if word.group().lower() in FILLERS else [word.group()]
                place = word.end()
            else:
                place += 1
        return found, unknown

    def _longest(self, text: str, place: int) -> tuple[re.Match[str], Question | None] | None:
        matches = [(match, ask) for pattern, ask in self.phrases if (match := pattern.match(text, place))]
        whole = [pair for pair in matches if pair[0].end() > place and _ends(text, pair[0].end())]
        return max(whole, key=lambda pair: pair[0].end(), default=None)

    def differences(self, subject: str, text: Any, asked: Any) -> Iterator[str]:
        """What of a recorded sentence is not so with ``asked``."""
        found, unknown = self.read(str(text))
        if unknown or not found:
            yield unmapped(subject, text) + (f" (unknown: {' '.join(unknown)})" if unknown else "")
        for match, ask in found:
            answer = None if ask is None else ask(match, asked)
            if answer is not None:
                yield f"{subject}: {answer}, recorded {match.group()!r}"


def _ends(text: str, place: int) -> bool:
    """Whether no word goes on at ``place``."""
    return place == len(text) or not (text[place - 1].isalnum() and text[place].isalnum())


def number(text: str) -> float:
    """``.02``, ``1e-6``, ``8,192``."""
    return float(text.replace(",", ""))
