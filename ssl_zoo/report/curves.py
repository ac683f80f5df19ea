"""metrics.csv -> curves.png: loss, accuracy, collapse and throughput on one page."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssl_zoo.errors import ConfigError

Series = tuple[np.ndarray, np.ndarray]  # steps [N], values [N]

BLUE, ORANGE, GREEN, GREY = "#2a6fb0", "#d9731a", "#2e8b57", "#777777"
LEGEND_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "frameon": False, "fontsize": 8}


def save_curves(run_dir: str | Path, baselines: Mapping[str, float] | None = None) -> Path:
    """Draw the metrics of a run.

    Args:
        run_dir: Folder with ``metrics.csv``; may belong to a run that is still going on.
        baselines: Accuracies in percent that the run is measured against, drawn as level lines under their names.
            The untrained network's kNN is read from the first row (step 0).

    Returns:
        Path of ``curves.png`` in the same folder.

    Raises:
        ConfigError: If the folder has no ``metrics.csv``.
    """
    run_dir = Path(run_dir)
    metrics = read_metrics(run_dir / "metrics.csv")
    # A figure without pyplot: nothing global is touched, so that it can be drawn from inside a notebook or a server.
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    draw_loss(axes[0, 0], metrics)
    draw_accuracy(axes[0, 1], metrics, baselines or {})
    draw_collapse(axes[1, 0], metrics)
    draw_throughput(axes[1, 1], metrics)
    steps = [series[0].max() for series in metrics.values() if len(series[0])]
    for axis in axes.flat:
        axis.set_xlim(0, 1.01 * max([*steps, 1]))
    figure.suptitle(str(run_dir), fontsize=10)
    path = run_dir / "curves.png"
    figure.savefig(path, dpi=120)
    return path


def read_metrics(path: Path) -> dict[str, Series]:
    """Read ``metrics.csv`` by column: the steps at which it has a number, and those numbers (NaN and inf included)."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; give the folder of a run that logged metrics.csv")
    points: dict[str, list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.pop("step", None))
            for name, text in row.items():
                value = _number(text)
                if step is not None and value is not None:
                    points.setdefault(name, []).append((int(step), value))
    return {name: (np.array([s for s, _ in xy]), np.array([v for _, v in xy])) for name, xy in points.items()}


def _number(text: Any) -> float | None:
    """A cell as a number; None for an empty cell, for words, and for what the last line of a live file lacks."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving mean that shortens its window at both ends: ``[N]`` -> ``[N]``; NaN are left out."""
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    i = np.arange(len(values))
    half = np.minimum(np.minimum(i, len(values) - 1 - i), window // 2)
    n = count[i + half + 1] - count[i - half]
    mean = (total[i + half + 1] - total[i - half]) / np.maximum(n, 1)
    return np.where(n > 0, mean, np.nan)


def draw_loss(axis: Axes, metrics: Mapping[str, Series]) -> None:
    _frame(axis, "Loss")
    if not _recorded(axis, metrics, "train/loss"):
        return
    steps, values = metrics["train/loss"]
    many = len(steps) > 40
    axis.plot(
        steps, values, color=BLUE, alpha=0.3 if many else 1.0, linewidth=1, marker="" if many else "o", markersize=3
    )
    if many:
        axis.plot(steps, smooth(values, len(steps) // 20), color=BLUE, linewidth=1.8)
    bad = ~np.isfinite(values)
    if bad.any():
        axis.axvline(steps[bad][0], color="red", linewidth=1)
        axis.annotate(
            f"not finite at step {steps[bad][0]}", (0.03, 0.05), xycoords="axes fraction", color="red", fontsize=8
        )


def draw_accuracy(axis: Axes, metrics: Mapping[str, Series], baselines: Mapping[str, float]) -> None:
    """Probe and kNN top-1 in percent, with level lines for the untrained network and other baselines."""
    _frame(axis, "Validation top-1 (%)")
    if not _recorded(axis, metrics, "probe/top1", "knn/top1", why="needs a labelled validation set"):
        return
    for name, label, colour in (("probe/top1", "linear probe", BLUE), ("knn/top1", "kNN", ORANGE)):
        if name in metrics:
            steps, values = metrics[name]
            axis.plot(steps, values, color=colour, marker="o", markersize=3, label=f"{label}, last {values[-1]:.1f}")
    levels = dict(baselines)
    if "knn/top1" in metrics and metrics["knn/top1"][0][0] == 0:
        levels = {"untrained kNN": float(metrics["knn/top1"][1][0]), **levels}
    for (name, value), style in zip(levels.items(), ("--", ":", "-.", (0, (1, 4))), strict=False):
        axis.axhline(value, color=GREY, linestyle=style, linewidth=1.2, label=f"{name} {value:.1f}")
    axis.legend(ncols=3, **LEGEND_BELOW)


def draw_collapse(axis: Axes, metrics: Mapping[str, Series]) -> None:
    """Spread of the features (1 isotropic, 0 collapsed) on the left, effective rank on the right."""
    _frame(axis, "Collapse")
    if not _recorded(axis, metrics, "collapse/std", "collapse/rank"):
        return
    _pair(axis, metrics, ("collapse/std", "spread (1 isotropic, 0 collapsed)"), ("collapse/rank", "effective rank"))
    axis.set_ylim(0, max(1.05, axis.get_ylim()[1]))


def draw_throughput(axis: Axes, metrics: Mapping[str, Series]) -> None:
    """Samples per second over all devices on the left, share of time spent waiting for data on the right."""
    _frame(axis, "Throughput")
    if not _recorded(axis, metrics, "throughput/samples_per_s", "throughput/data_wait"):
        return
    right = _pair(
        axis, metrics, ("throughput/samples_per_s", "samples/s"), ("throughput/data_wait", "waiting for data (share)")
    )
    right.set_ylim(0, 1)


def _pair(axis: Axes, metrics: Mapping[str, Series], left: tuple[str, str], right: tuple[str, str]) -> Axes:
    """Two metrics of different units over one another, each axis in the colour of its curve; returns the right axis."""
    other = axis.twinx()
    other.spines["top"].set_visible(False)
    other.grid(False)
    for where, (name, label), colour in ((axis, left, BLUE), (other, right, GREEN)):
        if name in metrics:
            steps, values = metrics[name]
            where.plot(steps, values, color=colour, linewidth=1.5, marker="o" if len(steps) < 40 else "", markersize=3)
            top = values[np.isfinite(values)].max(initial=0.0)
            where.set_ylim(0, top * 1.1 if top > 0 else 1)
        where.set_ylabel(label, color=colour, fontsize=9)
        where.tick_params(axis="y", colors=colour, labelsize=9)
    return other


def _frame(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axis.set_xlabel("optimizer steps", fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)


def _recorded(axis: Axes, metrics: Mapping[str, Series], *names: str, why: str = "") -> bool:
    """Whether any of ``names`` has a number; else the panel says that there is none."""
    if any(name in metrics and any(map(math.isfinite, metrics[name][1])) for name in names):
        return True
    text = "not recorded" + (f"\n({why})" if why else "")
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)
    axis.set_yticks([])
    return False
