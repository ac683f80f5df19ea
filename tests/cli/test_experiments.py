"""Experiments as a user types them, made small: two real steps, after which the optimizer has used the file's values.

That a composed recipe is the recorded one is asked in ``tests/golden/test_recipes.py``, field by field; here that a
training through the command uses it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.optim.schedules import Progress
from tests.cli import commands, small
from tests.cli.values import numbers
from tests.golden.recipes.composed import EXPERIMENTS, Composed
from tests.golden.recipes.fields.points import PARTS
from tests.golden.recipes.rates import Groups
from tests.golden.recipes.recorded import Recorded, recorded_in

RECORDED = Path(__file__).parents[1] / "golden" / "data" / "recipes"
NAMES = sorted(
    name
    for name in (path.stem.replace("__", "_") for path in RECORDED.glob("*__*.json"))
    if (EXPERIMENTS / f"{name}.yaml").exists()
)
FAST = "simsiam_imagenet_100ep"  # two groups, one of which keeps its rate
STOPPED = 143  # by SIGTERM


def trained(composed: Composed, folder: Path) -> dict[str, Any]:
    """What two steps through the command have used, and what the same optimizer would use in the authors' run."""
    batch, length = composed.cfg.data.batch_size, composed.progress(0)
    kept = f"path: {folder / 'values.json'}, batch: {batch}, total: {length.total}"
    callback = (
        f"+callbacks.values={{_target_: tests.cli.values.Values, {kept}, steps_per_epoch: {length.steps_per_epoch}}}"
    )
    words = [word for word in composed.words if "checkpoint=" not in word]
    done = commands.run("train", *small.words(words, composed.info.classes), callback, cwd=folder)
    assert done.code == STOPPED, done.out + done.err
    return dict(json.loads((folder / "values.json").read_text()))


def expected(composed: Composed, batch: int, progress: Progress) -> dict[str, Any]:
    """Of the recipe at its full widths, for a batch of any size."""
    bound = composed.method.recipe.bind(composed.method.named_parameters(), batch, fused=False)
    bound.apply(progress)
    return numbers(bound.optimizer)


def recorded_at(recorded: Recorded, composed: Composed, row: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Group -> (key, rate) of a recorded point."""
    groups, parts = Groups(composed), {key: PARTS[key] for key in row if key in PARTS}
    which = {i: key for key, selector in parts.items() for i in groups.of(selector) or []}
    every = [(i, group.name) for i, group in enumerate(composed.bound.groups)]
    return {name: (which.get(i, "lr"), row[which.get(i, "lr")]) for i, name in every}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == FAST else [pytest.mark.slow]) for name in NAMES]
)
@pytest.mark.slow
def test_two_steps_use_the_values_of_the_recipe(name: str, tmp_path: Path) -> None:
    recorded = next(run for run in recorded_in(RECORDED) if run.name == name)
    composed = Composed(recorded)
    found = trained(composed, tmp_path)
    run = Progress(0, found["total"], found["steps_per_epoch"])
    for step in (0, 1):
        there = Progress(step, run.total, run.steps_per_epoch)
        assert found["used"][step] == expected(composed, small.ROWS, there)
    length, rows = composed.progress(0), recorded.value("points") or []
    for step in (0, 1, length.total - 1):
        there = Progress(step, length.total, length.steps_per_epoch)
        assert found[str(step)] == expected(composed, composed.cfg.data.batch_size, there)
    for row in rows if not recorded.soft("points") else []:
        for group, (key, rate) in (
            recorded_at(recorded, composed, row).items() if row["at"] in ("first", "last") else ()
        ):
            assert math.isclose(found[str(row["step"])][group]["lr"], rate, rel_tol=1e-6, abs_tol=1e-15), (group, key)
