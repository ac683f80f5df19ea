"""The shape of the learning rate between the points that are compared number by number.

Our schedule is asked at steps that the words name: ends of the warm-up, milestones, thirds of the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from tests.golden.recipes.composed import Composed
from tests.golden.recipes.fields.rates import peak
from tests.golden.recipes.keys import Reader, by_key
from tests.golden.recipes.rates import Groups, near, selectors
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped

CLOSE = 1e-6
SHAPE = 0.02  # of the peak: between formulas that differ by their counter


class Curve:
    """Our rate at every step of the authors' run."""

    def __init__(self, value: dict[str, Any], recorded: Recorded, composed: Composed) -> None:
        self.value = value
        self.composed = composed
        self.groups = Groups(composed)
        self.which = self.groups.others(selectors(recorded.value("lr_groups")))
        start = composed.progress(0)
        self.total, self.per_epoch = start.total, start.steps_per_epoch
        self.warmup = int(self.value.get("warmup_steps") or 0)
        self.peak = peak(composed)

    def __call__(self, step: float, groups: Groups | None = None) -> float:
        found = (groups or self.groups).values("lr", self.composed.progress(int(step)), self.which)
        return found[0]

    @property
    def text(self) -> str:
        return f"{self.value.get('granularity') or ''}; {self.value.get('formula') or ''}"

    @property
    def stretch(self) -> float:
        return self.value.get("stretch") or 1.0

    def doubled(self) -> Groups:
        """The same for twice the batch."""
        method, batch = self.composed.method, 2 * self.composed.recorded.value("batch")
        return Groups(self.composed, method.recipe.bind(method.named_parameters(), batch, fused=False))


@field("lr_schedule")
def lr_schedule(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    yield from by_key("lr_schedule", value, _KEYS, Curve(value, recorded, composed))


def _kind(subject: str, wanted: str, curve: Curve) -> Iterator[str]:
    for part in wanted.split(", "):
        shape = _SHAPES.get(part)
        if shape is None:
            yield unmapped(subject, part)
        else:
            yield from (f"{subject}: {told}, recorded {part!r}" for told in shape(curve))


def _constant(curve: Curve) -> Iterator[str]:
    found = {curve(curve.total * part // 7) for part in range(8)}
    if len(found) > 1:
        yield f"rates from {min(found):g} to {max(found):g}"


def _straight(curve: Curve) -> Iterator[str]:
    """The warm-up: half of its rise at half of its counts, of which an epoch is one where it moves once an epoch."""
    if not curve.warmup:
        return
    low, middle, high = curve(0), curve(curve.warmup // 2), curve(max(curve.warmup - 1, 1))
    counts = curve.warmup / (curve.per_epoch if curve(math.ceil(curve.per_epoch) - 1) == low else 1)
    if not near(middle, (low + high) / 2, 0, SHAPE * curve.peak + high / counts):
        yield f"{middle:g} half-way from {low:g} to {high:g}"


def _cosine(curve: Curve) -> Iterator[str]:
    end, warmup = curve.value.get("end") or 0.0, curve.warmup
    restarts = "over all" in curve.text or "per epoch" in curve.text  # a cosine whose clock starts with the run
    for part in (0.25, 0.5, 0.75):
        step = warmup + part * (curve.total - warmup)
        begin = 0 if restarts else warmup
        done = (step - begin) / (curve.total * curve.stretch - begin)
        wanted = end + (curve.peak - end) * (1 + math.cos(math.pi * done)) / 2
        if not near(curve(step), wanted, 0, SHAPE * curve.peak):
            yield f"{curve(step):g} at step {step:g}, by a cosine {wanted:g}"


def _steps(curve: Curve) -> Iterator[str]:
    """As many values behind the warm-up as milestones, and one."""
    drops = len(_milestones(curve)) + 1
    found = {curve(curve.warmup + 1 + part * (curve.total - curve.warmup - 2) // 400) for part in range(401)}
    if len(found) != drops:
        yield f"{len(found)} different rates behind the warm-up"


def _staircase(curve: Curve) -> Iterator[str]:
    found = {curve(curve.warmup + 1 + part * (curve.total - curve.warmup - 2) // 400) for part in range(401)}
    if not 2 < len(found) <= curve.total / curve.per_epoch:
        yield f"{len(found)} different rates behind the warm-up"


_SHAPES = {
    "constant": _constant, "linear warm-up": _straight, "cosine": _cosine, "steps": _steps,
    "exponential staircase": _staircase,
}  # fmt: skip


def _granularity(subject: str, wanted: str, curve: Curve) -> Iterator[str]:
    """Whether the rate moves within an epoch, before and behind the end of the warm-up."""
    for part in re.sub(r"\([^)]*\)", "", wanted).split(", "):
        words = re.fullmatch(r"(warm-up |cosine |steps )?(?:per )?(step|epoch)|(one late)", part.strip())
        if words is None:
            yield unmapped(subject, part)
            continue
        per_step, rising = words[2] == "step", words[1] == "warm-up "
        if words[3] or words[1] == "steps " or not (rising or "cosine" in curve.value["kind"]):
            continue
        begin = 0 if rising else math.ceil((curve.warmup + 0.4 * (curve.total - curve.warmup)) / curve.per_epoch)
        first, last = curve(math.ceil(begin * curve.per_epoch)), curve(math.ceil((begin + 1) * curve.per_epoch) - 1)
        if (first != last) != per_step:
            yield unequal(subject, f"{first:g} to {last:g} within an epoch", part)


def _warmup_steps(subject: str, wanted: int, curve: Curve) -> Iterator[str]:
    """The highest rate is reached then, or one step beside it where the counters differ."""
    around = {step: curve(step) for step in range(max(int(wanted) - 3, 0), int(wanted) + 4)}
    later = [curve(wanted + part * (curve.total - wanted) // 50) for part in range(1, 50)]
    top = max([*around.values(), *later])
    reached = next((step for step, rate in around.items() if near(rate, top, CLOSE)), None)
    if reached is None or abs(reached - wanted) > (1 if wanted else 0):
        yield unequal(subject, f"highest rate at step {reached}", wanted)


def _start(subject: str, wanted: float, curve: Curve) -> Iterator[str]:
    """The first rate, or what lies one step before it."""
    first, second = curve(0), curve(1)
    if not any(near(ours, wanted, CLOSE, CLOSE * curve.peak) for ours in (first, 2 * first - second)):
        yield unequal(subject, first, wanted)


def _end(subject: str, wanted: float, curve: Curve) -> Iterator[str]:
    """The last rate, or what would follow it."""
    step = curve.total * curve.stretch
    found = [curve(step - 1), curve(step)]
    if not any(near(ours, wanted, CLOSE, CLOSE * curve.peak) for ours in found):
        yield unequal(subject, found[1], wanted)


def _end_is(subject: str, wanted: str, curve: Curve) -> Iterator[str]:
    plain = re.sub(r"\([^)]*\)", "", wanted).partition(":")[0].strip()
    step = curve.total * curve.stretch
    if part := re.fullmatch(r"peak / (\d+)", plain):
        if not near(curve(step), curve.peak / int(part[1]), 1e-3):
            yield unequal(subject, curve(step), wanted)
    elif plain != "absolute":
        yield unmapped(subject, wanted)
    elif not near(curve(step, curve.doubled()), curve(step), 1e-6):
        yield unequal(subject, f"{curve(step):g}, and {curve(step, curve.doubled()):g} for twice the batch", wanted)


def _warmup_to(subject: str, wanted: float, curve: Curve) -> Iterator[str]:
    """The line of the warm-up: its last value, or the one behind it."""
    last, before = curve(curve.warmup - 1), curve(curve.warmup - 2)
    if not any(near(ours, wanted, CLOSE) for ours in (last, 2 * last - before)):
        yield unequal(subject, 2 * last - before, wanted)


def _counter(subject: str, wanted: str, curve: Curve) -> Iterator[str]:
    """From 1: the first rate is one step of the warm-up above its start."""
    if not re.fullmatch(r"from 1( \([^)]*\))?", wanted):
        yield unmapped(subject, wanted)
        return
    before = 2 * curve(0) - curve(1)
    if not near(before, curve.value["start"], CLOSE, CLOSE * curve.peak):
        yield unequal(subject, f"first rate {curve(0):g}, and {before:g} before it", wanted)


def _stretch(subject: str, wanted: float, curve: Curve) -> Iterator[str]:
    """The end is reached at this multiple of the run, not before."""
    end = curve.value["end"]
    if not near(curve(curve.total * wanted), end, CLOSE, CLOSE * curve.peak):
        yield unequal(subject, f"{curve(curve.total * wanted):g} there, the end is {end:g}", wanted)
    if near(curve(curve.total * wanted * 0.995), end, CLOSE, CLOSE * curve.peak):
        yield unequal(subject, "reached before", wanted)


def _milestones(curve: Curve) -> list[float]:
    return list(curve.value.get("milestones") or curve.value.get("milestones_epochs") or [])


def _late(curve: Curve) -> int:
    """Epochs by which the drop follows its milestone: 1 for counters from 0 that must be above it."""
    words = re.search(r"one epoch late|milestone \+ 1", curve.text)
    above = re.search(r"e(poch)? > milestone", curve.text) and "from 1" not in curve.text
    return 1 if words or above else 0


def _drops(subject: str, wanted: list[float], curve: Curve) -> Iterator[str]:
    """At every milestone, and by the recorded factor."""
    gamma, level = curve.value["gamma"], curve.peak
    for i, milestone in enumerate(wanted):
        edge = math.ceil((milestone + _late(curve)) * curve.per_epoch)
        after = curve.peak * (gamma[i] if isinstance(gamma, list) else gamma ** (i + 1))
        found = curve(edge - 1), curve(edge + (1 if "step, one late" in curve.text else 0))
        if not (near(found[0], level, CLOSE) and near(found[1], after, CLOSE)):
            yield unequal(
                subject, f"{found[0]:g} before and {found[1]:g} behind {milestone}", f"{level:g} and {after:g}"
            )
        level = after


def _gamma(subject: str, wanted: Any, curve: Curve) -> Iterator[str]:
    if curve.value.get("every_epochs") is None and not _milestones(curve):
        yield unmapped(subject, wanted)


def _every(subject: str, wanted: float, curve: Curve) -> Iterator[str]:
    """A staircase whose clock starts with the run."""
    first = math.ceil(curve.warmup / (wanted * curve.per_epoch)) + 1
    for n in (first, first + 1, int(curve.total / (wanted * curve.per_epoch))):
        edge = math.ceil(n * wanted * curve.per_epoch - 1e-6)
        after = curve.peak * curve.value["gamma"] ** n
        found = curve(edge - 1), curve(edge)
        if not (near(found[0], after / curve.value["gamma"], CLOSE) and near(found[1], after, CLOSE)):
            yield unequal(subject, f"{found[0]:g} before and {found[1]:g} behind step {edge}", after)


def _formula(subject: str, wanted: str, curve: Curve) -> Iterator[str]:
    """The whole in one line, from which the points were computed: what it says is asked key by key, and there."""
    yield from ()


_KEYS: dict[str, Reader] = {
    "kind": _kind, "granularity": _granularity, "warmup_steps": _warmup_steps, "start": _start, "end": _end,
    "end_is": _end_is, "warmup_to": _warmup_to, "counter": _counter, "stretch": _stretch, "milestones": _drops,
    "milestones_epochs": _drops, "gamma": _gamma, "every_epochs": _every, "formula": _formula,
}  # fmt: skip
