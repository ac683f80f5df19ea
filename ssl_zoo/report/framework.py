"""Which choice of a contrastive method moves accuracy, and by how much: the runs of ``experiment=framework``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from ssl_zoo.errors import ConfigError

VARIED, BASE = "method/contrastive/varied", ("none", "base")  # a row's change, loss/margin; what the base is called
KNN = "kNN top-1"
UP, DOWN = "#2a6fb0", "#d9731a"


def effects(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each change about the base moves; the choice that moves most comes first.

    Args:
        rows: One for each run: its change under ``method/contrastive/varied``, and ``kNN top-1`` in percent; runs
            without a number (failed ones) do not count. Runs of the same change are seeds.

    Returns:
        ``choice``, ``value``, ``knn``, ``change`` (points from the base), ``spread`` (deviation over seeds; None: one
        run), ``runs``, and ``range``: of all values of the choice, the base's among them.

    Raises:
        ConfigError: Without a finished run of the base, or of anything else.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.get(KNN) is not None:
            found.setdefault(str(row[VARIED]), []).append(float(row[KNN]))
    base = [number for name in BASE for number in found.pop(name, [])]
    if not base or not found:
        raise ConfigError(f"framework: wanted finished runs of the base ({VARIED}=none) and of changes about it, got "
                          f"{len(base)} and {sum(map(len, found.values()))}; repeat what failed")  # fmt: skip
    told: list[dict[str, Any]] = []
    for name, numbers in found.items():
        choice, _, value = name.partition("/")
        spread = stdev(numbers) if len(numbers) > 1 else None
        change = mean(numbers) - mean(base)
        told.append({"choice": choice, "value": value, "knn": mean(numbers), "change": change, "spread": spread,
                     "runs": len(numbers)})  # fmt: skip
    changes = {one["choice"]: [0.0, *(x["change"] for x in told if x["choice"] == one["choice"])] for one in told}
    ranges = {choice: max(values) - min(values) for choice, values in changes.items()}
    ordered = sorted(told, key=lambda one: (-ranges[one["choice"]], one["choice"], -one["change"]))
    return [{**one, "range": ranges[one["choice"]]} for one in ordered]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """:func:`effects` as Markdown, choice by choice."""
    told = effects(rows)
    base = told[0]["knn"] - told[0]["change"]
    lines = [f"The base: {base:.1f} % kNN top-1.", "", "| choice | moves accuracy by | value | kNN | from the base |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for one in told:
        spread = "" if one["spread"] is None else f" ± {one['spread']:.1f}"
        knn = f"{one['knn']:.1f}{spread}"
        lines.append(f"| {one['choice']} | {one['range']:.1f} | {one['value']} | {knn} | {one['change']:+.1f} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """A bar from the base for each change, the choices one below the other, the one that moves most first."""
    told = effects(rows)
    base = told[0]["knn"] - told[0]["change"]
    choices = list(dict.fromkeys(one["choice"] for one in told))
    places = [i + choices.index(one["choice"]) for i, one in enumerate(told)]  # a gap between choices
    figure = Figure(figsize=(7.0, 0.27 * (places[-1] + 3) + 0.6), layout="constrained")
    axis = figure.subplots()
    for one, y in zip(told, places, strict=True):
        change, spread, up = one["change"], one["spread"] or 0.0, one["change"] >= 0
        axis.barh(y, change, xerr=spread or None, color=UP if up else DOWN, height=0.8, capsize=2)
        end = change + (spread if up else -spread)
        axis.annotate(f" {change:+.1f} ", (end, y), ha="left" if up else "right", va="center", fontsize=8)
    axis.set_yticks(places, [one["value"] for one in told], fontsize=8)
    for choice in choices:
        first = next(i for i, one in enumerate(told) if one["choice"] == choice)
        label = f"{choice}: moves {told[first]['range']:.1f} points"
        above = (0.01, places[first] - 0.85)
        axis.annotate(label, above, xycoords=("axes fraction", "data"), fontsize=8, weight="bold")
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_ylim(places[-1] + 0.8, -1.4)
    axis.margins(x=0.18)
    axis.set_xlabel(f"kNN top-1, points from the base ({base:.1f} %)", fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    return out
