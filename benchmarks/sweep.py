"""What a sweep found: accuracy over the epochs of every run of it, as a picture and a table.

``python -m ssl_zoo.benchmarks.sweep FOLDER [metric=knn/top1]`` reads the finished run folders of a sweep
(``outputs/sweeps/...``, made by ``train.py -m``) and writes ``sweep.png``, ``sweep.md`` and ``sweep.json`` beside them.
A run is named by those of its overrides that another run of the sweep does not have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from ssl_zoo.errors import ConfigError
from ssl_zoo.report.curves import read_metrics

OVERRIDES = Path(".hydra") / "overrides.yaml"


@dataclass(frozen=True)
class Curve:
    """One run: its name, and (step, value) of the metric."""

    name: str
    steps: list[int]
    values: list[float]

    @property
    def gain(self) -> float:
        """Last value less the first, that of the untrained network."""
        return self.values[-1] - self.values[0]


def read(sweep: Path, metric: str) -> list[Curve]:
    """The runs of a sweep that have the metric, in the order of their numbers.

    Raises:
        ConfigError: If no run of the folder has it.
    """
    folders = sorted((path.parent for path in sweep.glob("*/metrics.csv")), key=_number)
    names = dict(zip(folders, name_runs([_overrides(folder) for folder in folders]), strict=True))
    curves = []
    for folder in folders:
        steps, values = read_metrics(folder / "metrics.csv").get(metric, ([], []))
        if len(steps):
            curves.append(Curve(names[folder] or folder.name, [int(s) for s in steps], [float(v) for v in values]))
    if not curves:
        raise ConfigError(f"{sweep}: no run of it has {metric} in its metrics.csv; give the folder of a sweep "
                          "(outputs/sweeps/...) with finished runs, or another metric=NAME")
    return curves


def _number(folder: Path) -> tuple[int, str]:
    """Hydra numbers the folders from 0."""
    first = folder.name.split("_")[0]
    return (int(first) if first.isdigit() else 0, folder.name)


def _overrides(folder: Path) -> list[str]:
    file = folder / OVERRIDES
    return list(yaml.safe_load(file.read_text()) or []) if file.is_file() else []


def name_runs(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells each run from the others: ``backbone=resnet8, projector.norm=layer``."""
    shared = set.intersection(*(set(words) for words in overrides)) if overrides else set()
    return [", ".join(word.removeprefix("method.") for word in words if word not in shared) for words in overrides]


def markdown(curves: Sequence[Curve], metric: str) -> str:
    lines = [f"| run | {metric}, untrained | trained | gain |", "| --- | --- | --- | --- |"]
    for curve in sorted(curves, key=lambda curve: -curve.values[-1]):
        lines.append(f"| {curve.name} | {curve.values[0]:.1f} | {curve.values[-1]:.1f} | {curve.gain:+.1f} |")
    return "\n".join(lines) + "\n"


def draw(curves: Sequence[Curve], metric: str, path: Path) -> Path:
    """Lines over the steps, named in the order in which they end."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    for curve in sorted(curves, key=lambda curve: -curve.values[-1]):
        axis.plot(curve.steps, curve.values, marker="o", markersize=3, label=f"{curve.values[-1]:.1f}  {curve.name}")
    axis.set_xlabel("optimizer steps", fontsize=9)
    axis.set_ylabel(f"{metric} (%)", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def main(argv: Sequence[str]) -> int:
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    folders = [word for word in argv if "=" not in word]
    try:
        if len(folders) != 1 or set(given) - {"metric"}:
            raise ConfigError("wanted: python -m ssl_zoo.benchmarks.sweep FOLDER [metric=knn/top1]")
        sweep, metric = Path(folders[0]).expanduser(), given.get("metric", "knn/top1")
        curves = read(sweep, metric)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    draw(curves, metric, sweep / "sweep.png")
    (sweep / "sweep.md").write_text(markdown(curves, metric))
    (sweep / "sweep.json").write_text(json.dumps([vars(curve) for curve in curves], indent=2) + "\n")
    print(markdown(curves, metric) + f"written: {sweep / 'sweep.png'}, sweep.md, sweep.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
