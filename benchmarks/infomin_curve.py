"""The InfoMin principle on a run of one's own: shared information of the views against accuracy, over one augmentation.

``python -m ssl_zoo.benchmarks.infomin_curve out=FOLDER [op=image/color_jitter] [options=brightness,contrast,saturation]
[values=0,0.2,0.4,0.8] [candidates=N] [method=moco_v2 data=cifar10 ... as for train.py]``

InfoMin, https://arxiv.org/abs/2005.10243 (Sec. 3.2 and 4.1): as an augmentation grows, what two views share falls, and
accuracy first rises (nuisances go), then falls (the task's information goes): an inverted U. What they share is bounded
from below by ``ln(candidates) - loss`` of an InfoNCE loss. Runs that are finished in FOLDER are not repeated.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from ssl_zoo import build, config, launch, runs
from ssl_zoo.errors import ConfigError, nearest

DEFAULTS = {
    "op": "image/color_jitter",
    "options": "brightness,contrast,saturation",
    "values": "0,0.2,0.4,0.8",
    "candidates": "",
    "out": "",
}
ACCURACIES = ("probe/top1", "knn/top1")


@dataclass(frozen=True)
class Point:
    """One run: the value of the augmentation, the bound in nats, and accuracy in percent."""

    value: float
    bound: float
    accuracy: float


def strengthened(cfg: DictConfig, op: str, options: Sequence[str], value: float) -> DictConfig:
    """A copy of a configuration whose views all have ``options`` of the operation ``op`` at ``value``.

    Raises:
        ConfigError: If no view has the operation.
    """
    plain = OmegaConf.to_container(cfg)
    assert isinstance(plain, dict)
    found = [entry for view in plain["augmentation"]["views"] for entry in view["ops"] if op in entry]
    if not found:
        names = {name for view in plain["augmentation"]["views"] for entry in view["ops"] for name in entry}
        raise ConfigError(f"op={op}: no view of this configuration has it; {nearest(op, names)}")
    for entry in found:
        entry[op] = {**(entry[op] or {}), **dict.fromkeys(options, value)}
    return OmegaConf.create(plain)


def candidates_of(method: dict[str, Any]) -> int:
    """Among how many keys a query's own is looked for, for methods with a queue.

    Raises:
        ConfigError: For any other method.
    """
    if not method.get("queue_size"):
        raise ConfigError("cannot tell from the configuration among how many candidates the loss looks for a query's "
                          "key: it has no method.queue_size; give candidates=N")
    return int(method["queue_size"]) + 1


def point(run_dir: Path, value: float, candidates: int | None = None) -> Point:
    """Read a finished run: the mean loss of its last epoch, and its last accuracy.

    Args:
        run_dir: With ``config.yaml`` and ``metrics.csv``.
        value: Of the augmentation.
        candidates: None: the method's queue and the positive.

    Raises:
        ConfigError: If the run has recorded no loss or no accuracy.
    """
    cfg = OmegaConf.to_container(OmegaConf.load(run_dir / runs.CONFIG))
    assert isinstance(cfg, dict)
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [(int(row["epoch"]), float(row["train/loss"])) for row in rows if row.get("train/loss")]
    known = [[float(row[name]) for row in rows if row.get(name)] for name in ACCURACIES]
    accuracies = next((found for found in known if found), [])
    if not losses or not accuracies:
        missing = "train/loss" if not losses else " or ".join(ACCURACIES)
        raise ConfigError(f"{run_dir}/metrics.csv has no {missing}; train with labels, a validation set and "
                          "callbacks=default")
    last = [loss for epoch, loss in losses if epoch == losses[-1][0]]
    count = candidates_of(cfg["method"]) if candidates is None else candidates
    return Point(value, log(count) - sum(last) / len(last), accuracies[-1])


def train(cfg: DictConfig, run_dir: Path) -> None:
    """One run in this process, unless the folder holds it already."""
    config.quick_check(cfg)
    build.check_signatures(cfg)
    launch.train_in(run_dir, cfg)


def sweet_spot(points: Sequence[Point]) -> str:
    """What the curve says, in a sentence."""
    ordered = sorted(points, key=lambda p: p.bound)
    best = max(ordered, key=lambda p: p.accuracy)
    if best in (ordered[0], ordered[-1]):
        side = "less" if best is ordered[0] else "more"
        return (f"best at the end of the sweep (value {best.value:g}, {best.accuracy:.1f} %): no turning point yet; "
                f"try values at which the views share {side}")
    return f"sweet spot at value {best.value:g}: {best.bound:.2f} nats shared, {best.accuracy:.1f} %"


def draw(points: Sequence[Point], name: str, path: Path) -> Path:
    """The curve as a picture."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot([p.bound for p in points], [p.accuracy for p in points], color="#2a6fb0", marker="o")
    for p in points:
        axis.annotate(f"{p.value:g}", (p.bound, p.accuracy), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axis.set_xlabel("ln(candidates) - loss: what two views share at least (nats)", fontsize=9)
    axis.set_ylabel("accuracy (%)", fontsize=9)
    axis.set_title(f"{name}\n{sweet_spot(points)}", loc="left", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    return path


def main(argv: Sequence[str]) -> int:
    given = {**DEFAULTS, **{k: v for k, v in (word.split("=", 1) for word in argv if "=" in word) if k in DEFAULTS}}
    overrides = [word for word in argv if word.partition("=")[0] not in DEFAULTS]
    try:
        if not given["out"]:
            raise ConfigError("out is not given; wanted out=FOLDER for the runs and the curve")
        points = sweep(given, overrides, Path(given["out"]).expanduser().absolute())
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = Table(given["op"], "ln(candidates) - loss", "accuracy (%)")
    for p in points:
        table.add_row(f"{p.value:g}", f"{p.bound:.3f}", f"{p.accuracy:.1f}")
    Console().print(table, sweet_spot(points))
    return 0


def sweep(given: dict[str, str], overrides: Sequence[str], out: Path) -> list[Point]:
    """Train what is missing, read all runs, and write ``curve.png`` and ``curve.json``."""
    options = given["options"].split(",")
    values = [float(text) for text in given["values"].split(",")]
    candidates = int(given["candidates"]) if given["candidates"] else None
    cfg = config.load(["method=moco_v2", "logger=csv", *overrides])
    if candidates is None:
        candidates = candidates_of(config.plain(cfg)["method"])
    points = []
    for value in values:
        train(strengthened(cfg, given["op"], options, value), out / f"{value:g}")
        points.append(point(out / f"{value:g}", value, candidates))
    draw(points, f"{given['op']}: {given['options']}", out / "curve.png")
    (out / "curve.json").write_text(json.dumps([vars(p) for p in points], indent=2) + "\n")
    return points


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
