"""Which teachers a method moves, when in a step, and by how much: found by letting it do so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.optim.schedules import Progress


@dataclass
class Updates:
    """Momenta and teachers of the moves before and after the optimizer's step."""

    before: list[tuple[EMA, nn.Module, float]] = field(default_factory=list)
    after: list[tuple[EMA, nn.Module, float]] = field(default_factory=list)

    @property
    def momenta(self) -> list[float]:
        """The different ones, in the order of the moves."""
        return list(dict.fromkeys(momentum for *_, momentum in (*self.before, *self.after)))


def updates(method: Method, progress: Progress) -> Updates:
    """What a method does to its teachers in the step of that progress; nothing is moved."""
    found, kept = Updates(), method.progress
    method.progress = progress
    try:
        with _noted(found.before):
            method.before_step()
        with _noted(found.after):
            method.after_step()
    finally:
        method.progress = kept
    return found


@contextmanager
def _noted(moves: list[tuple[EMA, nn.Module, float]]) -> Iterator[None]:
    own = EMA.update

    def note(self: EMA, student: nn.Module, momentum: float, *_: Any, **__: Any) -> None:
        moves.append((self, student, float(momentum)))

    EMA.update = note  # type: ignore[method-assign]
    try:
        yield
    finally:
        EMA.update = own  # type: ignore[method-assign]
