"""The numbers that a run uses at seven of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssl_zoo.optim.schedules import Progress, value
from tests.golden.recipes.averaging import updates
from tests.golden.recipes.composed import Composed
from tests.golden.recipes.rates import Groups, near
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.samples import SETS

# Of a point: the part whose rate it is, as sentences of recipes call it.
PARTS = {"lr_biases": "ndim == 1", "lr_predictor": "predictor"}
PLACES = ("at", "step", "epoch")
EXACT = 1e-6  # at the authors' number of steps
OWN = 0.02  # at the number of steps that our data gives
FLOOR = 1e-4  # of the peak: what a rate near its end may differ by, where an epoch has a step more or less


@field("points")
def points(rows: list[dict[str, Any]], recorded: Recorded, composed: Composed) -> Iterator[str]:
    groups = Groups(composed)
    parts = {key for row in rows for key in row if key in PARTS}
    for row in rows:
        yield from _place(row, recorded)
        theirs, ours = composed.progress(row["step"]), _ours(row, recorded, composed)
        for key in [key for key in row if key not in PLACES]:
            subject = f"points.{row['at']}.{key}"
            found = _found(key, groups, parts, composed, theirs)
            if found is None:
                yield unmapped(subject, row[key])
                continue
            if len(found) != 1 or not near(found[0], row[key], EXACT, 1e-15):
                yield unequal(subject, found[0] if len(found) == 1 else found, row[key])
            elif key != "last_layer_gradient":
                yield from _at_ours(subject, _found(key, groups, parts, composed, ours), row, key, rows)


def _place(row: dict[str, Any], recorded: Recorded) -> Iterator[str]:
    """Whether the step of a point is the one that its name says."""
    total, per_epoch = recorded.value("total_steps"), recorded.value("steps_per_epoch")
    warmup = recorded.value("lr_schedule")["warmup_steps"]
    steps = {
        "first": [0], "last": [total - 1],
        "half_warmup": [warmup // 2, warmup // 2 - 1], "end_warmup": [warmup, warmup - 1],
        "25%": [total // 4], "50%": [total // 2], "75%": [3 * total // 4],
    }  # fmt: skip
    if row["step"] not in steps.get(row["at"], []):
        yield unmapped(f"points.{row['at']}.step", row["step"])
    samples, _ = SETS[recorded.dataset]  # some count epochs by the samples seen, whatever the steps of one
    seen = row["step"] * recorded.value("batch") / samples
    if not any(near(epoch, row["epoch"], 1e-9, 1e-9) for epoch in (row["step"] / per_epoch, seen)):
        yield unequal(f"points.{row['at']}.epoch", row["step"] / per_epoch, row["epoch"])


def _ours(row: dict[str, Any], recorded: Recorded, composed: Composed) -> Progress:
    """The same epoch of our run, whose epochs may have a step more or less."""
    last = composed.ours_total - 1
    step = last if row["at"] == "last" else round(row["epoch"] * composed.ours_steps_per_epoch)
    return composed.progress(min(step, last), theirs=False)


def _found(key: str, groups: Groups, parts: set[str], composed: Composed, progress: Progress) -> list[float] | None:
    """The different values that we use; None: nobody knows where to look."""
    method: Any = composed.method
    if key == "lr":
        return groups.values("lr", progress, groups.others([PARTS[part] for part in parts]))
    if key in PARTS:
        return groups.values("lr", progress, groups.of(PARTS[key]) or [])
    if key == "weight_decay":
        every = groups.values("weight_decay", progress, groups.others([]))
        return [x for x in every if x != 0] or every
    if key == "ema_momentum":
        return updates(method, progress).momenta
    if key == "teacher_temperature" and hasattr(method, "teacher_temperature"):
        return [value(method.teacher_temperature, progress)]
    if key == "teacher_patch_temperature" and hasattr(method, "patch_temperature"):
        return [value(method.patch_temperature, progress.since(method.mask_start))]
    if key == "last_layer_gradient":
        frozen = [group for group in groups.bound.groups if progress.step < (group.frozen_steps(progress) or 0)]
        return [0.0 if frozen else 1.0]
    return None


def _at_ours(
    subject: str, found: list[float] | None, row: dict[str, Any], key: str, rows: list[dict[str, Any]]
) -> Iterator[str]:
    """The first step: both 0 or both above."""
    wanted, highest = row[key], max(other[key] for other in rows)
    for ours in found or []:
        if row["at"] == "first" and wanted * ours == 0 and wanted != ours:
            yield unequal(f"{subject} of our first step", ours, wanted)
        elif row["at"] != "first" and not near(ours, wanted, OWN, FLOOR * highest):
            yield unequal(f"{subject} at our number of steps", ours, wanted)
