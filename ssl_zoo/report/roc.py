"""verification.png: the ROC of pairs, and how similar pairs of one class and of two are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_zoo.report.curves import BLUE, GREY, LEGEND_BELOW, ORANGE

NAMES = {"cosine": "cosine similarity", "euclidean": "negative Euclidean distance"}


def save_roc(path: Path, result: Mapping[str, Any]) -> Path:
    """Draw what :func:`ssl_zoo.evaluation.verification.evaluate` found.

    Args:
        path: Of the picture.
        result: Of the protocol, with the names of method and data.

    Returns:
        ``path``.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_curve(left, result)
    _draw_scores(right, result)
    for axis in (left, right):
        axis.grid(True, color="#e6e6e6", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(ncols=2, **LEGEND_BELOW)
    pairs = result["pairs"]
    counted = f"{pairs['same']:,} pairs of one class, {pairs['different']:,} of two"
    figure.suptitle(f"{result['method']} on {result['data']}: {counted}", fontsize=11, fontweight="bold")
    figure.savefig(path, dpi=110)
    return path


def _draw_curve(axis: Axes, result: Mapping[str, Any]) -> None:
    curve, rate = result["curve"], result["eer"]
    percent = [100 * np.array(curve[name]) for name in ("fpr", "tpr")]
    axis.plot(*percent, color=BLUE, linewidth=1.8, label=f"features (area {result['auc']:.1f} %)")
    axis.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="chance (50 %)")
    axis.plot(rate, 100 - rate, "o", color=ORANGE, label=f"equal error rate {rate:.1f} %")
    axis.set(xlim=(-1, 101), ylim=(-1, 101), xlabel="pairs of two classes that are accepted (%)")
    axis.set_ylabel("pairs of one class that are accepted (%)")


def _draw_scores(axis: Axes, result: Mapping[str, Any]) -> None:
    edges = np.array(result["scores"]["edges"])
    for name, label, colour in (("same", "one class", BLUE), ("different", "two classes", ORANGE)):
        counts = np.array(result["scores"][name])
        axis.stairs(100 * counts / counts.sum(), edges, color=colour, fill=True, alpha=0.45, label=label)
    axis.axvline(result["threshold"], color=GREY, linestyle="--", linewidth=1, label=f"accuracy {result['acc']:.1f} %")
    axis.set(xlabel=NAMES[result["similarity"]], ylabel="pairs (%)")
