"""Temperatures, and other numbers that scores are divided, cut or multiplied by."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ssl_zoo.losses.prototypical import concentration_of
from ssl_zoo.optim.schedules import value as at
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.keys import Reader, by_key, same
from tests.golden.recipes.rates import near
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.words import Grammar


@field("temperatures")
def temperatures(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    if not value and (own := [name for name in vars(composed.method) if "temperature" in name]):
        yield unequal("temperatures", own, "none")
    yield from by_key("temperatures", value, _KEYS, composed)


def _attribute(composed: Composed, *names: str) -> Any:
    """The first of these names that the method has, or one of its parts; a list where several parts differ."""
    method: Any = composed.method
    for name in names:
        if hasattr(method, name):
            return getattr(method, name)
        found = list(
            dict.fromkeys(getattr(m, name) for m in method.modules() if isinstance(getattr(m, name, None), float))
        )
        if found:
            return found[0] if len(found) == 1 else found
    return None


def _named(*names: str) -> Reader:
    """A number, or a table of a schedule, under the first of these names."""

    def reader(subject: str, wanted: Any, composed: Composed) -> Iterator[str]:
        ours = _attribute(composed, *names)
        if isinstance(wanted, dict) and ours is not None and not isinstance(ours, list):
            yield from by_key(subject, wanted, _SCHEDULE, (composed, ours, wanted))
        elif callable(ours):
            found = {ours(composed.progress(step)) for step in (0, composed.progress(0).total - 1)}
            if found != {wanted}:
                yield unequal(subject, sorted(found), wanted)
        elif not same(ours, wanted):
            yield unequal(subject, ours, wanted)

    return reader


def _in_epoch(asked: Any, epoch: float, last: bool = False) -> float:
    composed, ours, _ = asked
    per_epoch = composed.progress(0).steps_per_epoch
    step = math.ceil((epoch + 1) * per_epoch) - 1 if last else math.ceil(epoch * per_epoch)
    return at(ours, composed.progress(step))


def _start(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    """Without a warm-up the end value stands from the first step on."""
    if asked[2].get("warmup_epochs") and not near(_in_epoch(asked, 0), wanted, 1e-6):
        yield unequal(subject, _in_epoch(asked, 0), wanted)


def _end(subject: str, wanted: float, asked: Any) -> Iterator[str]:
    warmup = asked[2].get("warmup_epochs") or 0
    found = [_in_epoch(asked, warmup), _in_epoch(asked, warmup + 5)]
    if not all(near(x, wanted, 1e-6) for x in found):
        yield unequal(subject, found, wanted)


def _warmup_epochs(subject: str, wanted: int, asked: Any) -> Iterator[str]:
    """Before its end the last value is not reached; a line with its end in it reaches it in the last epoch."""
    if not wanted or asked[2]["start"] == asked[2]["end"]:
        return
    before = _in_epoch(asked, wanted - 2)
    if near(before, asked[2]["end"], 1e-6):
        yield unequal(subject, f"{before:g} two epochs before", wanted)


def _granularity(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    if wanted not in ("epoch", "step"):
        yield unmapped(subject, wanted)
    elif asked[2].get("warmup_epochs"):
        first, last = _in_epoch(asked, 1), _in_epoch(asked, 1, last=True)
        if (first == last) != (wanted == "epoch"):
            yield unequal(subject, f"{first:g} to {last:g} within an epoch", wanted)


def _style(subject: str, wanted: str, asked: Any) -> Iterator[str]:
    """The value of a middle epoch of the warm-up."""
    if wanted != "np.linspace, end included":
        yield unmapped(subject, wanted)
        return
    start, end, epochs = (asked[2][key] for key in ("start", "end", "warmup_epochs"))
    if epochs > 1:
        number = start + (end - start) * (epochs // 2) / (epochs - 1)
        if not near(_in_epoch(asked, epochs // 2), number, 1e-6):
            yield unequal(f"{subject} in epoch {epochs // 2}", _in_epoch(asked, epochs // 2), number)


_SCHEDULE: dict[str, Reader] = {
    "start": _start, "end": _end, "warmup_epochs": _warmup_epochs, "granularity": _granularity, "style": _style,
}  # fmt: skip


def _loss_scale(subject: str, wanted: str, composed: Composed) -> Iterator[str]:
    """``2T``: by how much the loss of two pairs of known similarity is larger than the plain one."""
    words = re.fullmatch(r"(\d+)T", wanted)
    contrast: Callable[..., Any] | None = getattr(composed.method, "contrast", None)
    if words is None or contrast is None:
        yield unmapped(subject, wanted)
        return
    temperature = float(_attribute(composed, "temperature"))
    plain = math.log(1 + math.exp(-1 / temperature))
    ours = float(contrast(torch.eye(2), torch.eye(2))) / plain
    if not near(ours, int(words[1]) * temperature, 1e-4):
        yield unequal(subject, ours, wanted)


def _mean(match: Any, composed: Composed) -> str | None:
    """On two clusters that are drawn: the mean of what the prototypes' scores are divided by."""
    method: Any = composed.method
    distance, assignment = torch.tensor([0.1, 0.2, 0.5, 0.9]), torch.tensor([0, 0, 1, 1])
    found = concentration_of(distance, assignment, 2, method.temperature, method.smoothing)
    close = near(float(found.mean()), float(match[1]), 1e-4) and found[0] < found[1]
    return None if close else f"{found.tolist()} for a dense and a loose cluster"


_PROTOTYPES = Grammar((r"([\d.]+) times density over its mean", _mean), (r"per prototype", None))

_KEYS: dict[str, Reader] = {
    "loss": _named("temperature"),
    "student": _named("student_temperature", "temperature"),
    "teacher": _named("teacher_temperature", "temperature"),
    "teacher_patch": _named("patch_temperature"),
    "target_sharpening": _named("target_temperature"),
    "kd": _named("kd_temperature"),
    "base": _named("base_temperature"),
    "tau": _named("temperature"),
    "kappa": _named("temperature"),
    "score_clip": _named("limit"),
    "loss_scale": _loss_scale,
    "prototypes": _PROTOTYPES.differences,
}
