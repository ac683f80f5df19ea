"""How a study is drawn: a panel for each entry of ``study.draw``, by the name of one of these functions.

Each takes an axis, the results, and the name of a measure (``paper``: the paper's numbers), and options of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.report.curves import GREY
from ssl_zoo.report.study.declared import PAPER
from ssl_zoo.report.study.sweep import Results, Values

COLOURS = ("#2a6fb0", "#d9731a", "#2e8b57", "#8e4aa8", "#b03a48", "#777777", "#8a6d1f", "#3aa6a6")
WIDTH, HEIGHT = 5.4, 4.2  # of a panel, inches


def heat_map(axis: Axes, results: Results, of: str, digits: int = 1) -> None:
    """The first setting downwards, the second to the right, the mean over seeds in each field."""
    rows, columns = results.labels_of(0), results.labels_of(1)
    values = np.array([[_mean(results.values((row, column), of)) for column in columns] for row in rows])
    image = axis.imshow(values, cmap="viridis", aspect="auto")
    middle = np.nanmean(values) if np.isfinite(values).any() else 0.0
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if value < middle else "black"
            axis.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=8)
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.get_figure().colorbar(image, ax=axis, fraction=0.046)  # type: ignore[union-attr]


def bars(axis: Axes, results: Results, of: str) -> None:
    """A bar for each label of the first setting, side by side for the others; spread of the seeds on top."""
    places, groups = results.labels_of(0), _groups(results)
    width = 0.8 / len(groups)
    for i, rest in enumerate(groups):
        found = [results.values((place, *rest), of) for place in places]
        xs = np.arange(len(places)) + width * (i - (len(groups) - 1) / 2)
        heights = [_mean(values) for values in found]
        axis.bar(xs, heights, width * 0.92, yerr=[values.spread or 0.0 for values in found], capsize=3,
                 color=COLOURS[i % len(COLOURS)], label=", ".join(rest))  # fmt: skip
        for x, height in zip(xs, heights, strict=True):
            if np.isfinite(height):
                axis.annotate(f"{height:.3g}", (x, height), ha="center", va="bottom", fontsize=7)
    axis.set_xticks(range(len(places)), places, rotation=20, ha="right", fontsize=8)
    _finish(axis, of, groups)


def lines(axis: Axes, results: Results, of: str, log: bool = False) -> None:
    """The first setting to the right, by its numbers where it has some; a line for each label of the others."""
    places, groups = results.labels_of(0), _groups(results)
    numbers = _numbers(places)
    for i, rest in enumerate(groups):
        found = [results.values((place, *rest), of) for place in places]
        there = [j for j, values in enumerate(found) if values.mean is not None]
        axis.errorbar([numbers[j] for j in there], [_mean(found[j]) for j in there],
                      [found[j].spread or 0.0 for j in there], capsize=3, marker="o", markersize=4,
                      color=COLOURS[i % len(COLOURS)], label=", ".join(rest))  # fmt: skip
    if log:
        axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, places, fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel(results.study.axes[0].key, fontsize=9)
    _finish(axis, of, groups)


def curves(axis: Axes, results: Results, of: str, log: bool = False) -> None:
    """A column of ``metrics.csv`` over the steps: a line for each run, a colour for all seeds of one kind."""
    for i, (labels, cell) in enumerate(results.cells.items()):
        kind = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.2, "alpha": 0.85}
        known = [run for run in cell.runs if of in run.series]
        for j, run in enumerate(known):
            axis.plot(*run.series[of], label=", ".join(labels) if j == 0 else None, **kind)  # type: ignore[arg-type]
    if log:
        axis.set_yscale("log")
    axis.set_xlabel("optimizer steps", fontsize=9)
    _finish(axis, of, [("named",)])


def against(axis: Axes, results: Results, of: str, x: str) -> None:
    """A measure against another one, a point for each cell under its labels, joined in the order of the cells."""
    points = [(_mean(results.values(labels, x)), _mean(results.values(labels, of))) for labels in results.cells]
    axis.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o", markersize=4, linewidth=1)
    for point, labels in zip(points, results.cells, strict=True):
        if np.isfinite(point).all():
            axis.annotate(", ".join(labels), point, xytext=(4, 4), textcoords="offset points", fontsize=8)
    axis.set_xlabel(x, fontsize=9)
    _finish(axis, of, [()])


DRAWINGS: dict[str, Callable[..., None]] = {f.__name__: f for f in (heat_map, bars, lines, curves, against)}


def draw(results: Results, out: Path) -> Path:
    """All panels of a study, beside one another, into ``out``.

    Raises:
        ConfigError: For a drawing that there is not.
    """
    panels = [_panel(results, entry) for entry in results.study.draw]
    # Without pyplot: nothing global is touched.
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (function, of, options) in zip(axes, panels, strict=True):
        function(axis, results, of, **options)
        title = f"the paper: {results.study.of}" if of == PAPER else of
        axis.set_title(title, loc="left", fontsize=8 if of == PAPER else 9, wrap=True)
    figure.suptitle(results.study.question, fontsize=10)
    figure.savefig(out, dpi=110)
    return out


def _panel(results: Results, entry: Mapping[str, Any]) -> tuple[Callable[..., None], str, dict[str, Any]]:
    (name, of), *options = entry.items()
    if name not in DRAWINGS:
        raise ConfigError(f"experiment/{results.study.name}.yaml: study.draw: {nearest(str(name), DRAWINGS)}")
    return DRAWINGS[name], str(of), {str(key): value for key, value in options}


def _groups(results: Results) -> list[tuple[str, ...]]:
    """The labels of all settings but the first, each combination once."""
    return list(dict.fromkeys(labels[1:] for labels in results.cells))


def _mean(values: Values) -> float:
    return float("nan") if values.mean is None else values.mean


def _numbers(labels: list[str]) -> list[float]:
    try:
        return [float(label) for label in labels]
    except ValueError:
        return [float(i) for i in range(len(labels))]


def _finish(axis: Axes, of: str, groups: list[tuple[str, ...]]) -> None:
    axis.set_ylabel("" if of == PAPER else of, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, axis="y", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    if any(groups) and axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7)
    if not axis.has_data():
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color=GREY)
