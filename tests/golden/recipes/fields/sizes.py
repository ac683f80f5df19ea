"""What is trained on, how much of it in a step, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssl_zoo import config
from tests.golden.recipes.composed import EXPERIMENTS, Composed
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.registry import field, unequal, unmapped
from tests.golden.recipes.samples import SETS

FOLDER = "ssl_zoo.data.image.folder.folder"  # what reads a data set that has no file of its own in conf/data


@field("dataset")
def dataset(value: str, recorded: Recorded, composed: Composed) -> Iterator[str]:
    if value not in SETS:
        yield unmapped("dataset", value)
        return
    own = EXPERIMENTS.parent / "data" / f"{value}.yaml"
    wanted = config.load([f"data={value}"]).data.source._target_ if own.exists() else FOLDER
    if composed.cfg.data.source._target_ != wanted:
        yield unequal("dataset", composed.cfg.data.source._target_, value)


@field("expected")
def expected(value: dict[str, Any], recorded: Recorded, composed: Composed) -> Iterator[str]:
    """A number stands where it was printed for this very run, and nowhere else."""
    ours = (composed.cfg.expected or {}).get("value")
    if ours != value["value"] and (composed.is_experiment or ours is not None):
        yield unequal("expected", ours, value["value"])


@field("image_size")
def image_size(value: Any, recorded: Recorded, composed: Composed) -> Iterator[str]:
    ours = composed.plain["data"]["image_size"]
    if ours != value:
        yield unequal("image_size", ours, value)


@field("batch")
def batch(value: int, recorded: Recorded, composed: Composed) -> Iterator[str]:
    ours = composed.cfg.data.batch_size
    if ours != value or composed.cfg.trainer.accumulate != 1:
        yield unequal("batch", ours, value)


@field("epochs")
def epochs(value: float, recorded: Recorded, composed: Composed) -> Iterator[str]:
    """Exact where they count epochs; where they count steps, ours is the nearest whole number."""
    ours = composed.ours_total / composed.ours_steps_per_epoch
    if abs(ours - value) > (0 if value == int(value) else 0.5):
        yield unequal("epochs", ours, value)


@field("steps_per_epoch")
def steps_per_epoch(value: float, recorded: Recorded, composed: Composed) -> Iterator[str]:
    """Theirs counts a last batch that is not full, or a part of one, or drops what the processes cannot share."""
    ours = composed.ours_steps_per_epoch
    if abs(ours - value) > 1:
        yield unequal("steps_per_epoch", ours, value)


@field("total_steps")
def total_steps(value: int, recorded: Recorded, composed: Composed) -> Iterator[str]:
    """At most one step an epoch apart, and one at the end."""
    ours, per_epoch = composed.ours_total, composed.ours_steps_per_epoch
    if abs(ours - value) > ours / per_epoch + 1:
        yield unequal("total_steps", ours, value)
