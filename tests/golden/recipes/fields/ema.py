"""The moving average: asked by letting a method move its teachers."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as holds
from typing import Any

import torch
from torch import nn

from ssl_zoo.modules.ema import EMA
from tests.golden.recipes.averaging import Updates, updates
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key
from tests.golden.recipes.rates import near
from tests.golden.recipes.real import real_method
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.words import Grammar

CLOSE = 1e-4  # averaging momentum


@dataclass
class Moves:
    """What a method does to its teachers over a run."""

    composed: Composed
    value: dict[str, Any]
    seen: dict[int, Updates] = holds(default_factory=dict)

    @property
    def total(self) -> int:
        return self.composed.progress(0).total

    def at(self, step: float) -> Updates:
        return self.seen.setdefault(int(step), updates(self.composed.method, self.composed.progress(int(step))))

    def momentum(self, step: float) -> Any:
        """Of all teachers, or a list where they differ."""
        found = self.at(step).momenta
        return found[0] if len(found) == 1 else found

    @property
    def pairs(self) -> list[tuple[EMA, nn.Module]]:
        found = self.at(0)
        return [(teacher, student) for teacher, student, _ in (*found.before, *found.after)]


@field("ema")
def ema(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    moves = Moves(composed, value if isinstance(value, dict) else {})
    if value == "none":
        if moves.pairs:
            yield unequal("ema", f"{len(moves.pairs)} teachers follow", value)
        return
    if isinstance(value, dict) and not moves.pairs:
        yield unequal("ema", "no teacher follows", value)
        return
    yield from by_key("ema", value, _KEYS, moves)


def _is(subject: str, ours: Any, wanted: float) -> Iterator[str]:
    if isinstance(ours, list) or not near(ours, wanted, 0, CLOSE):
        yield unequal(subject, ours, wanted)


def _momentum(subject: str, wanted: float, moves: Moves) -> Iterator[str]:
    """At the start; of a formula that rises to it, at the end."""
    rises = "min(" in str(moves.value.get("schedule"))
    yield from _is(subject, moves.momentum(moves.total - 1 if rises else 0), wanted)


def _end(subject: str, wanted: Any, moves: Moves) -> Iterator[str]:
    """``1.0``, or ``1.0 at 1.25 times the run``."""
    words = re.fullmatch(r"([\d.]+)(?: at ([\d.]+) times the run)?", str(wanted))
    if words is None:
        yield unmapped(subject, wanted)
        return
    stretch = float(words[2] or 1)
    yield from _is(subject, moves.momentum(stretch * moves.total), float(words[1]))
    if moves.value["momentum"] != float(words[1]) and near(
        _one(moves.momentum(0.5 * moves.total)), float(words[1]), 1e-9
    ):
        yield unequal(subject, "reached before", wanted)


def _one(found: Any) -> float:
    return math.nan if isinstance(found, list) else float(found)


def _schedule(subject: str, wanted: str, moves: Moves) -> Iterator[str]:
    """Its value at a third of the run, by the formula that the words name."""
    step, total, value = moves.total // 3, moves.total, moves.value
    start = value["momentum"]
    words = re.fullmatch(r"([\d.]+)(?: at ([\d.]+) times the run)?", str(value.get("end", start)))
    end, stretch = (float(words[1]), float(words[2] or 1)) if words else (start, 1.0)
    done = step / (total * stretch)
    if wanted == "constant":
        number = start
    elif re.fullmatch(r"cosine per step(: 1 - 0\.5\*\(1\+cos\(pi\*e/E\)\)\*\(1-m\))?", wanted) or re.fullmatch(
        r"1 - \(1-m\)\*\(cos\(pi\*k/N\)\+1\)/2 per step", wanted
    ):
        number = end - (end - start) * (1 + math.cos(math.pi * done)) / 2
    elif re.fullmatch(r"linear per step(, counter from 0)?", wanted):
        number = start + (end - start) * done
    elif words := re.fullmatch(r"min\(([\d.]+), \(1 \+ step\)/\(10 \+ step\)\)", wanted):
        step = 20
        number = min(float(words[1]), (1 + step) / (10 + step))
    else:
        yield unmapped(subject, wanted)
        return
    ours = (
        [moves.momentum(step + counter) for counter in (0, -1)] if wanted.startswith("min") else [moves.momentum(step)]
    )
    if not any(not isinstance(x, list) and near(x, number, 1e-6) for x in ours):
        yield unequal(f"{subject} at step {step}", ours[0], number)
    if wanted != "constant" and moves.momentum(step) == moves.momentum(step + 1):
        yield unequal(subject, "the same in two steps", wanted)


def _when(wanted: str) -> Any:
    def ask(match: Any, moves: Moves) -> str | None:
        found = moves.at(0)
        ours = "after" if found.after and not found.before else "before" if found.before and not found.after else "both"
        return None if ours == wanted else f"{ours} the optimizer's step"

    return ask


_WHEN = Grammar(
    (r"after the step(, with the new online parameters)?", _when("after")),
    (r"before the key forward( \(sees the query weights of before this step\))?", _when("before")),
    # The queries' network does not move in between, so that it is the same as before both.
    (r"after the queries' forward, before the keys' forward of the same step", _when("before")),
)


def _followed(moves: Moves, buffers: bool) -> bool:
    """Whether a teacher's buffers (batch-norm statistics) or parameters move when it is let follow a student."""
    for teacher, student in moves.pairs:
        small = EMA(_Stand(student), statistics=teacher.statistics)
        other = copy.deepcopy(small.net)
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.detach().add_(1.0)
        small.update(other, 0.5)
        moved = small.net.buffers() if buffers else small.net.parameters()
        if not all(bool((tensor != 0).all()) for tensor in moved):
            return False
    return True


class _Stand(nn.Module):
    """A small network with a parameter and a buffer, in place of a student that may lie on the meta device."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("statistics", torch.zeros(2))


def _parameters(match: Any, moves: Moves) -> str | None:
    return None if _followed(moves, buffers=False) else "parameters do not follow"


def _no_buffers(match: Any, moves: Moves) -> str | None:
    return "buffers follow too" if _followed(moves, buffers=True) else None


def _buffers(match: Any, moves: Moves) -> str | None:
    return None if _followed(moves, buffers=True) else "buffers do not follow"


def _head(wanted: bool) -> Any:
    def ask(match: Any, moves: Moves) -> str | None:
        """Whether parameters beside the backbone's follow."""
        backbone = {id(p) for p in moves.composed.method.backbone.parameters()}
        heads = any(id(p) not in backbone for _, student in moves.pairs for p in student.parameters())
        return None if heads == wanted else f"a head {'follows' if heads else 'does not follow'}"

    return ask


_COVERS = Grammar(
    (r"parameters( only)?", _parameters),
    (r"\(also predictor, unused\)", None),
    (r"batch norm state is the target's own|batch norm buffers run on their own", _no_buffers),
    (r"parameters and batch norm averages", _buffers),
    (r"of backbone and head|of the encoder with its head", _head(True)),
    (r"encoder parameters", _head(False)),
)


def _drawn_apart(match: Any, moves: Moves) -> str | None:
    """On real networks: some weights of the teacher are not the student's."""
    composed = moves.composed
    real = updates(real_method(composed), composed.progress(0))
    for teacher, student, _ in (*real.before, *real.after):
        own, other = dict(teacher.net.named_parameters()), dict(student.named_parameters())
        if all(torch.equal(own[name], other[name]) for name in own):
            return "it starts as the student's copy"
    return None


_START = Grammar(
    (r"its own random draw( \([^)]*\))?", _drawn_apart),
    (r"the authors saw no difference from the same key", None),
)


def _averaged(match: Any, moves: Moves) -> str | None:
    inside = {id(module) for teacher, _ in moves.pairs for module in teacher.modules()}
    return None if id(moves.composed.method.encoder) in inside else "another network is evaluated"


_ROLE = Grammar((r"evaluated network", _averaged), (r"not the teacher", None))

_KEYS: dict[str, Reader] = {
    "momentum": _momentum, "end": _end, "schedule": _schedule, "when": _WHEN.differences, "covers": _COVERS.differences,
    "target_start": _START.differences, "role": _ROLE.differences,
}  # fmt: skip
