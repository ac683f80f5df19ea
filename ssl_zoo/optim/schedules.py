"""Schedules: numbers as pure functions of how far a run has come.

They hold no state, so there is nothing to save and resuming is right by construction. The learning rate, the weight
decay, the momentum of a teacher and a temperature all use the same classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

from ssl_zoo.errors import require
from ssl_zoo.ranges import Count, NonNegative, Positive, Share

Self_ = TypeVar("Self_", bound="_Rates")


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step: Optimizer steps already taken, which is the index (from 0) of the one being taken.
        total: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of one epoch. Not whole for data that repeats without a boundary (SimCLR,
            BYOL); a warm-up of some epochs is then cut to whole steps, as their authors do.
    """

    step: int
    total: int
    steps_per_epoch: int | float

    @property
    def epoch(self) -> int:
        return int(self.step // self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; a last one that is cut short counts."""
        return math.ceil(self.total / self.steps_per_epoch)

    @property
    def fraction(self) -> float:
        return min(self.step / self.total, 1.0)

    def since(self, epoch: int) -> Progress:
        """For what begins in that epoch: its first step is step 0, and so are those before it."""
        return replace(self, step=max(self.step - int(epoch * self.steps_per_epoch), 0))


class Schedule(Protocol):
    """A number at every step; ``highest`` is its largest value.

    ``scaled`` is the same schedule times ``factor``, and times ``batch``, what the size of the batch makes of a rate:
    numbers that a recipe gives absolutely leave out the second.
    """

    def __call__(self, progress: Progress) -> float: ...

    def scaled(self, factor: float, batch: float = 1.0) -> Schedule: ...

    def highest(self) -> float: ...


def value(x: float | Schedule, progress: Progress) -> float:
    """The number that a constant or a schedule stands for at this step."""
    return x(progress) if callable(x) else float(x)


def capped_warmup(x: float | Schedule, progress: Progress) -> str | None:
    """The sentence that says how a warm-up longer than the run is cut, or None when it fits (or there is none)."""
    if isinstance(x, Held):
        return capped_warmup(x.after, progress)
    return x.cap_message(progress) if isinstance(x, _Ramp) else None


@dataclass(frozen=True)
class _Rates:
    """Multiplies and compares the fields that a class calls rates."""

    rates: ClassVar[tuple[str, ...]] = ()

    def scaled(self: Self_, factor: float, batch: float = 1.0) -> Self_:
        return replace(self, **{name: getattr(self, name) * (factor * batch) for name in self.rates})

    def highest(self) -> float:
        return max(getattr(self, name) for name in self.rates)


@dataclass(frozen=True)
class Constant(_Rates):
    rates = ("value",)
    value: float

    def __call__(self, progress: Progress) -> float:
        return self.value


@dataclass(frozen=True, kw_only=True)
class _Clock(_Rates):
    """Counts steps, or whole epochs.

    Args:
        per_epoch: The value changes once an epoch, at its start.
        offset: Added to the count: 1 for code that counts from 1 (SupContrast's epochs, MSN's steps).
        stretch: The curve is that of a run this much longer and is cut at the end (MSN: 1.25).
    """

    per_epoch: bool = False
    offset: int = 0
    stretch: Positive = 1.0

    def count(self, progress: Progress) -> float:
        return (progress.epoch if self.per_epoch else progress.step) + self.offset

    def length(self, progress: Progress) -> float:
        return (progress.epochs if self.per_epoch else progress.total) * self.stretch


@dataclass(frozen=True)
class Linear(_Clock):
    """``start`` to ``end`` in a straight line (EMA momentum of MSN and I-JEPA)."""

    rates = ("start", "end")
    start: NonNegative
    end: NonNegative

    def __call__(self, progress: Progress) -> float:
        done = min(self.count(progress) / self.length(progress), 1.0)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class Cosine(_Clock):
    """``start`` to ``end`` along half a cosine: ``end + (start - end) (1 + cos(pi k / K)) / 2``.

    EMA momentum of BYOL (``byol/utils/schedules.py``: 1 - (1 - base) (cos(pi k / K) + 1) / 2) and DINO; learning rate
    of MoCo, PCL, SimSiam (``per_epoch``) and SupContrast (``per_epoch``, ``offset=1``, ``end = start * rate^3``).
    """

    rates = ("start", "end")
    start: NonNegative
    end: NonNegative = 0.0

    def __call__(self, progress: Progress) -> float:
        return _half_cosine(self.start, self.end, self.count(progress), int(self.length(progress)))


@dataclass(frozen=True)
class InverseRoot(_Clock):
    """``base / sqrt(1 + decay k)``: Bottou's rate of SGD, ``learning_rate_decay`` in DeepCluster's util.py.

    Its ``decay`` is ``base`` times the weight decay; no recipe of the authors uses it.
    """

    rates = ("base",)
    base: float
    decay: float

    def __call__(self, progress: Progress) -> float:
        return self.base / math.sqrt(1.0 + self.decay * self.count(progress))


@dataclass(frozen=True)
class Step(_Rates):
    """``base``, multiplied when an epoch (from 0) reaches a milestone.

    Args:
        base: Value before the first milestone.
        milestones: Epochs, ascending. Authors who count from 1 and test ``epoch > milestone`` mean the same epochs;
            those who count from 0 and test ``epoch > milestone`` (MiCE) decay one epoch later: ``offset=-1``.
        gamma: Factor at every milestone, or one factor *of the base* per milestone (InvaSpread: 0.1, 0.05, 0.01).
        offset: Added to the epoch.
    """

    rates = ("base",)
    base: NonNegative
    milestones: Sequence[float]
    gamma: float | Sequence[float] = 0.1
    offset: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))  # lists of a config: make them hashable
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}")
        if isinstance(self.gamma, Sequence):
            object.__setattr__(self, "gamma", tuple(self.gamma))
            if len(self.gamma) != len(self.milestones):
                raise ValueError(f"gamma lists {len(self.gamma)} factors for {len(self.milestones)} milestones")

    def __call__(self, progress: Progress) -> float:
        passed = sum(progress.epoch + self.offset >= milestone for milestone in self.milestones)
        if isinstance(self.gamma, tuple):
            return self.base * (1.0, *self.gamma)[passed]
        return self.base * float(self.gamma) ** passed  # type: ignore[arg-type]


@dataclass(frozen=True)
class Staircase(_Rates):
    """``base * gamma^floor(k / K)``, K steps of ``every_epochs``: TensorFlow's ``exponential_decay``, ``staircase``.

    EfficientNet's rate (utils.py of google-research/noisystudent): x 0.97 every 2.4 or 4.8 epochs, inside an epoch too.
    """

    rates = ("base",)
    base: NonNegative
    every_epochs: Positive
    gamma: Share = 0.97

    def __call__(self, progress: Progress) -> float:
        return self.base * self.gamma ** math.floor(progress.step / (progress.steps_per_epoch * self.every_epochs))


@dataclass(frozen=True, kw_only=True)
class _Ramp(_Clock):
    """The straight line in front of a curve.

    Args:
        warmup_epochs: Length of the warm-up. One that does not fit the run is cut to a tenth of the run.
        warmup_steps: The same in steps, for code that rounds its own way; used instead when given.
        style: ``fraction``: at count k the value is ``start + (peak - start) k / n``, so the peak is reached one step
            after the warm-up (SimCLR, BYOL, Barlow Twins, MoCo v3, MAE). ``linspace``: ``np.linspace(start, peak, n)``,
            whose last value is the peak already, so that the curve repeats it (SwAV, DINO). ``ahead``: ``fraction`` one
            count ahead, with the same last value (lightly).
    """

    start: NonNegative = 0.0
    warmup_epochs: NonNegative = 0.0
    warmup_steps: Count | None = None
    style: str = "fraction"

    def __post_init__(self) -> None:
        require("style", self.style, STYLES)
        if self.warmup_epochs < 0 or (self.warmup_steps or 0) < 0:
            raise ValueError(f"a warm-up cannot be negative: epochs {self.warmup_epochs}, steps {self.warmup_steps}")

    def asked(self, progress: Progress) -> float:
        """Length of the warm-up in counts as configured."""
        if self.warmup_steps is not None:
            return self.warmup_steps / progress.steps_per_epoch if self.per_epoch else self.warmup_steps
        if self.per_epoch:
            return self.warmup_epochs
        steps = self.warmup_epochs * progress.steps_per_epoch
        return steps if isinstance(progress.steps_per_epoch, int) else math.floor(steps)

    def warmup(self, progress: Progress) -> float:
        """Length of the warm-up in counts as used: a run that only warms up would never train at its rate."""
        run = progress.epochs if self.per_epoch else progress.total
        asked = self.asked(progress)
        return asked if asked < run else float(run // 10)

    def cap_message(self, progress: Progress) -> str | None:
        asked, used = self.asked(progress), self.warmup(progress)
        if asked == used:
            return None
        unit, run = ("epochs", progress.epochs) if self.per_epoch else ("steps", progress.total)
        return f"the warm-up of {asked:g} {unit} does not fit a run of {run} {unit}: cut to {used:g} {unit}"

    def ramp(self, count: float, warmup: float, peak: float) -> float:
        count += self.style == "ahead"
        parts = max(warmup - 1, 1) if self.style == "linspace" else warmup
        return self.start + (peak - self.start) * min(count / parts, 1.0)


STYLES = ("fraction", "linspace", "ahead")


@dataclass(frozen=True)
class WarmupCosine(_Ramp):
    """Linear warm-up from ``start`` to ``peak``, then half a cosine from ``peak`` to ``end`` over the rest of the run.

    SimCLR (``tf2/model.py``: WarmUpAndCosineDecay), BYOL, SwAV (``style=linspace``), Barlow Twins and VICReg
    (``end_factor=0.001``), MoCo v3 and MAE (fractional epochs are steps), MSN (``offset=1, stretch=1.25``).

    Args:
        peak: Value at the end of the warm-up.
        end: Value that the cosine runs to; it is reached one step after the run's last.
        end_factor: The same as a part of the peak; used instead when given.
        absolute_end: ``end`` is the same for every batch size (``--min_lr`` of DINO, iBOT and DINOv2).
        end_in_run: The run's last step has ``end`` already (lightly).
    """

    rates = ("start", "peak", "end")
    peak: NonNegative
    end: NonNegative = 0.0
    end_factor: NonNegative | None = None
    absolute_end: bool = False
    end_in_run: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.absolute_end and self.end_factor is not None:
            raise ValueError(
                f"end_factor={self.end_factor:g} is a part of the peak, which scales with the batch: it cannot be an "
                "absolute end; give end=RATE instead, or absolute_end=false"
            )

    def scaled(self, factor: float, batch: float = 1.0) -> WarmupCosine:
        scaled = super().scaled(factor, batch)
        return replace(scaled, end=self.end * factor) if self.absolute_end else scaled

    def __call__(self, progress: Progress) -> float:
        count, warmup = self.count(progress), self.warmup(progress)
        if warmup and count < warmup:
            return self.ramp(count, warmup, self.peak)
        end = self.end if self.end_factor is None else self.end_factor * self.peak
        length = int(self.length(progress)) - warmup - self.end_in_run
        return _half_cosine(self.peak, end, count - warmup, length)


@dataclass(frozen=True)
class Warmup(_Ramp):
    """Linear warm-up in front of another schedule, whose own clock runs from the start of the run.

    Args:
        after: What follows (SupContrast and i-Mix: a cosine per epoch; MiCE: steps; DINO's temperature: a constant).
        toward: The warm-up runs to the value of this schedule at its end; None: of ``after``. SupContrast's and i-Mix's
            authors compute that value by a formula of its own, slightly off the curve that follows.
    """

    after: Any  # Schedule
    toward: Any = None  # Schedule or None

    def __call__(self, progress: Progress) -> float:
        count, warmup = self.count(progress), self.warmup(progress)
        if not warmup or count - self.offset >= warmup:
            return self.after(progress)
        end = round(warmup * progress.steps_per_epoch if self.per_epoch else warmup)
        return self.ramp(count, warmup, (self.toward or self.after)(replace(progress, step=end)))

    def scaled(self, factor: float, batch: float = 1.0) -> Warmup:
        toward = None if self.toward is None else self.toward.scaled(factor, batch)
        return replace(self, start=self.start * (factor * batch), after=self.after.scaled(factor, batch), toward=toward)

    def highest(self) -> float:
        return max(self.start, self.after.highest())


@dataclass(frozen=True)
class Held(_Rates):
    """A constant in the first epochs, then another schedule: DINOv2 holds the last layer's learning rate at 0.

    Args:
        after: What follows.
        epochs: How long.
        steps: The same in steps; used instead when given.
        value: Meanwhile.
        restart: The other schedule begins when it is let go, and has what is left of the run (``freeze_iters`` of
            DINOv2's ``CosineScheduler``); otherwise its clock runs from the start (``freeze_last_layer_epochs``).
    """

    after: Any  # Schedule
    epochs: NonNegative = 0.0
    steps: Count | None = None
    value: float = 0.0
    restart: bool = False

    def __call__(self, progress: Progress) -> float:
        held = round(self.epochs * progress.steps_per_epoch) if self.steps is None else self.steps
        if progress.step < held:
            return self.value
        if self.restart:
            progress = replace(progress, step=progress.step - held, total=max(progress.total - held, 1))
        return self.after(progress)

    def scaled(self, factor: float, batch: float = 1.0) -> Held:
        return replace(self, after=self.after.scaled(factor, batch), value=self.value * (factor * batch))

    def highest(self) -> float:
        return max(self.value, self.after.highest())


def _half_cosine(start: float, end: float, count: float, length: float) -> float:
    """``start`` at count 0, ``end`` from ``length`` on."""
    done = min(count / length, 1.0) if length > 0 else 1.0
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2
