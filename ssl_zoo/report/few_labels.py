"""few_labels.png: accuracy by the number of labels, of the trained network and of what it is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_zoo.evaluation.few_labels import DRAWS
from ssl_zoo.report.curves import BLUE, GREEN, GREY, LEGEND_BELOW, ORANGE
from ssl_zoo.report.summary import Row

STYLES = ((BLUE, "o", "-"), (GREY, "s", "--"), (ORANGE, "^", "-."), (GREEN, "D", ":"))
ASIDE = 0.05  # between the points of two rows, so that their bars do not lie on one another


def save_few_labels(run_dir: str | Path, rows: Sequence[Row]) -> Path:
    """Draw the accuracies of :class:`Row`, one line each.

    Args:
        run_dir: Where ``few_labels.png`` is written.
        rows: The method first; each with accuracies by labels a class.

    Returns:
        Path of the picture.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axis = figure.subplots()
    counts = sorted(rows[0].few)
    for i, row in enumerate(rows):
        _draw(axis, row, counts, i)
    axis.set_xticks(range(len(counts) + 1), [*map(str, counts), "all"])
    axis.set_xlim(-0.35, len(counts) + 0.35)
    axis.set_ylim(0, 103)
    axis.set_xlabel(f"labelled training samples of each class (bars: standard deviation of {DRAWS} draws)")
    axis.set_ylabel("validation top-1 (%)")
    axis.set_title("Linear classifiers on frozen features", loc="left", fontsize=11, fontweight="bold")
    axis.grid(True, axis="y", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(ncols=3, **LEGEND_BELOW)
    path = Path(run_dir) / "few_labels.png"
    figure.savefig(path, dpi=120)
    return path


def _draw(axis: Axes, row: Row, counts: Sequence[int], place: int) -> None:
    """One line with a bar of one standard deviation at each point, and the number at the first."""
    colour, marker, line = STYLES[place % len(STYLES)]
    means, spreads = zip(*(row.few[count] for count in counts), strict=True)
    xs = [i + ASIDE * place for i in range(len(counts) + 1)]
    ys, bars = [*means, row.probe], [*spreads, 0.0]
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1.8, "markersize": 5}
    axis.errorbar(xs, ys, bars, capsize=3, label=row.name, **look)
    beside: dict[str, Any] = {"xytext": (-9, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    axis.annotate(f"{ys[0]:.0f}", (xs[0], ys[0]), color=colour, **beside)
