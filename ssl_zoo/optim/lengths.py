"""The length of a run: how many steps it has, and whether it may have had another length up to now."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple

from omegaconf import DictConfig
from torch import nn

from ssl_zoo.optim.schedules import (
    Constant,
    Cosine,
    Held,
    InverseRoot,
    Linear,
    Progress,
    Schedule,
    Staircase,
    Step,
    Warmup,
    WarmupCosine,
    capped_warmup,
)

TORCH = ("_modules", "_parameters", "_buffers")  # of a module; its sub-modules are visited by themselves


def total_steps(steps_per_epoch: int, max_epochs: int | None, max_steps: int) -> int:
    """Optimizer steps of a run, as the trainer counts: -1 is no limit, and of two limits the first ends the run."""
    if max_steps <= 0:
        return steps_per_epoch * (max_epochs or 1)
    return min(steps_per_epoch * max_epochs, max_steps) if max_epochs and max_epochs > 0 else max_steps


def planned(cfg: DictConfig, samples: int, step: int = 0) -> Progress:
    """Steps per epoch and in total, as the trainer will take them.

    Args:
        cfg: Of the run; ``data.batch_size``, ``data.epoch_steps``, ``trainer.max_epochs`` and ``trainer.max_steps`` are
            read.
        samples: That an epoch shows where its steps are not given: ``data.epoch_samples``.
        step: Optimizer steps taken already.
    """
    per_epoch = cfg.data.get("epoch_steps") or samples // cfg.data.batch_size
    return Progress(step, total_steps(per_epoch, cfg.trainer.max_epochs, cfg.trainer.max_steps), per_epoch)


class Difference(NamedTuple):
    """Where a run of another length would have gone another way."""

    name: str  # of the schedule
    step: int  # from 0
    old: float  # what the run took
    new: float  # what it would have taken


def first_difference(method: nn.Module, done: int, old: Progress, new: Progress) -> Difference | None:
    """The first finished step at which a schedule has another value in a run of another length; None: there is none.

    Then the run may go on to its new length, and equals the run that had this length from the start. Compared are the
    options of all groups of the optimizer, and what the method and its parts hold as attributes. Nothing else in a
    method depends on the length of a run. A schedule whose own clock starts later (iBOT's ``patch_temperature``, from
    ``mask_start`` on) is compared from its first step on as if it had started with the run: this covers what it has
    shown, and at most refuses too early.

    Steps at which a schedule is provably equal are left out (:func:`equal_until`): whole schedules that do not read the
    length, warm-ups. The others are evaluated one by one, which usually ends at once: a cosine over the run differs at
    its first step. So the search is exact, and takes a second for 500,000 steps and six schedules.

    Args:
        method: With its optimizer bound.
        done: Optimizer steps that are finished: 0 to ``done - 1`` are compared.
        old, new: Total and steps per epoch of the two lengths; their ``step`` is not read.

    Raises:
        ValueError: If an epoch has not as many steps in both.
    """
    if old.steps_per_epoch != new.steps_per_epoch:
        raise ValueError(f"an epoch had {old.steps_per_epoch} steps and has {new.steps_per_epoch}: not the same run")
    if old.total == new.total:
        return None
    open_from = [(name, found, equal_until(found, old, new)) for name, found in schedules(method)]
    first = min((begin for *_, begin in open_from), default=math.inf)
    for step in range(int(min(first, done)), done):
        before, now = (Progress(step, run.total, run.steps_per_epoch) for run in (old, new))
        for name, found, begin in open_from:
            if step >= begin and (one := found(before)) != (other := found(now)):
                return Difference(name, step, one, other)
    return None


def schedules(method: Any) -> list[tuple[str, Schedule]]:
    """Every schedule that a run follows, each once, under a name by which its user knows it."""
    found: list[tuple[str, Schedule]] = []
    for name, x in (*_of_optimizer(method), *_of_parts(method)):
        if _is_schedule(x) and not any(x == known for _, known in found):
            found.append((name, x))
    return found


def cut_warmups(method: nn.Module, progress: Progress) -> list[str]:
    """``who: what`` for each schedule of the method and its parts whose warm-up does not fit the run.

    Those of the optimizer are told by :meth:`ssl_zoo.optim.recipe.BoundRecipe.messages`.
    """
    told = [(name, capped_warmup(x, progress)) for name, x in _of_parts(method) if _is_schedule(x)]
    return [f"{name}: {message}" for name, message in told if message]


def never_begun(method: Any, progress: Progress) -> list[str]:
    """``who: what`` for each part of the method that begins after the run's last epoch."""
    return [
        f"method.{name}: what begins in epoch {begin} never does in a run of {progress.epochs} epochs"
        for name in getattr(method, "begins", ())
        if (begin := attrgetter(name)(method)) >= progress.epochs
    ]


def _of_optimizer(method: Any) -> Iterator[tuple[str, Any]]:
    for group in method.bound.groups:
        for option, x in group.options.items():
            yield f"optimizer {group.name} {option}", x


def _of_parts(method: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in method.named_modules():
        for key, x in vars(module).items():
            if key not in TORCH:
                yield from _leaves(".".join(filter(None, ("method", path, key))), x)


def _leaves(name: str, x: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(x, Mapping):
        for key, inner in x.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif isinstance(x, (list, tuple)):
        for i, inner in enumerate(x):
            yield from _leaves(f"{name}[{i}]", inner)
    else:
        yield name, x


def _is_schedule(x: Any) -> bool:
    return callable(x) and not isinstance(x, type) and all(hasattr(x, name) for name in ("scaled", "highest"))


def equal_until(schedule: Any, old: Progress, new: Progress) -> float:
    """A step before which a schedule has the same value in both lengths, by what its formula reads there; inf: always.

    From there on the values have to be looked at, from step 0 where nothing is known: a class of a user, also one
    derived from ours.
    """
    kind = type(schedule)
    if kind in (Constant, Step, Staircase, InverseRoot):
        return math.inf
    if kind is Linear:
        return _curve(schedule.start == schedule.end or schedule.length(old) == schedule.length(new))
    if kind is Cosine:
        return _curve(schedule.start == schedule.end or _same_arc(schedule, old, new))
    if kind is WarmupCosine and schedule.warmup(old) == schedule.warmup(new):
        end = schedule.end if schedule.end_factor is None else schedule.end_factor * schedule.peak
        ramp = _steps(schedule, schedule.warmup(old) - schedule.offset, old) if schedule.warmup(old) else 0
        return max(ramp, _curve(end == schedule.peak or _same_arc(schedule, old, new)))
    if kind is Warmup and schedule.warmup(old) == schedule.warmup(new):
        ramp, toward = _steps(schedule, schedule.warmup(old), old), schedule.toward or schedule.after
        end = round(schedule.warmup(old) * old.steps_per_epoch if schedule.per_epoch else schedule.warmup(old))
        if toward(replace(old, step=end)) == toward(replace(new, step=end)):
            return max(ramp, equal_until(schedule.after, old, new))
    if kind is Held:
        held = round(schedule.epochs * old.steps_per_epoch) if schedule.steps is None else schedule.steps
        if not schedule.restart:
            return max(held, equal_until(schedule.after, old, new))
        left = (replace(run, total=max(run.total - held, 1)) for run in (old, new))
        return held + equal_until(schedule.after, *left)
    return 0


def _curve(same: bool) -> float:
    return math.inf if same else 0


def _same_arc(schedule: Any, old: Progress, new: Progress) -> bool:
    """Whether the half cosine ends at the same count."""
    return int(schedule.length(old)) == int(schedule.length(new))


def _steps(schedule: Any, count: float, progress: Progress) -> int:
    """Steps of so many counts, rounded down: to look at one step more does no harm."""
    return int(max(math.floor(count), 0) * (progress.steps_per_epoch if schedule.per_epoch else 1))
