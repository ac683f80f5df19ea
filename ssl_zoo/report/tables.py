"""A picture of rows of a table before and after the operations of a method's views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.table.encoding import Column
from ssl_zoo.data.table.source import columns_of

SAMPLES, COLUMNS = 5, 9  # at most so many are drawn
LETTERS = 14  # of a cell, at most
SAME, OTHER, HEAD = "white", "#ffd9a8", "#e8e8e8"


def save_rows(data: Any, path: str | Path) -> Path:
    """Draw the rows that the first batch of epoch 0 begins with, each above its views; cells that changed are coloured.

    Args:
        data: Data module of a table.
        path: PNG to write; its folder is made.

    Returns:
        ``path``.
    """
    columns = columns_of(data.train)
    places = torch.tensor(data.first(SAMPLES))
    rows = data.train.fetch(places).cpu()
    draw = Draw(stream_key(data.seed, "train", epoch=0), torch.arange(len(rows)))
    views = [decoded(view.cpu(), columns) for view in data.views(rows, draw)[0]]
    original = decoded(data.eval_view(rows).cpu(), columns)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _figure(original, views, columns, rows).savefig(path, dpi=110)
    return path


def decoded(view: Tensor, columns: Sequence[Column]) -> list[list[str]]:
    """What a network gets of some rows ``[B, inputs]`` in the words of the table; ``?``: no category."""
    parts = view.split([column.inputs for column in columns], dim=1)
    return [[_words(part[i], column) for part, column in zip(parts, columns, strict=True)] for i in range(len(view))]


def _words(values: Tensor, column: Column) -> str:
    if column.values is None:
        return column.text(float(values))
    share, place = values.max(0)
    name = column.text(float(place) if share > 0 else float("nan"))
    return name if share in (0, 1) else f"{name} {share:.0%}"


def _figure(original: list[list[str]], views: list[list[list[str]]], columns: Sequence[Column], rows: Tensor) -> Figure:
    shown = columns[:COLUMNS]
    cells, colours, names = [], [], []
    for i, own in enumerate(original):
        missing = rows[i, : len(shown)].isnan().tolist()
        cells.append(["?" if gone else _short(text) for gone, text in zip(missing, own, strict=False)])
        colours.append([HEAD] * len(shown))
        names.append(f"row {i}")
        for j, view in enumerate(views):
            texts = view[i][: len(shown)]
            cells.append([_short(text) for text in texts])
            colours.append([SAME if a == b else OTHER for a, b in zip(texts, own, strict=False)])
            names.append(f"view {j}")
    # No pyplot: nothing global is touched, so that a notebook or a server can draw.
    figure = Figure(figsize=(1.15 * len(shown) + 1.0, 0.26 * (len(cells) + 2)), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    table = axis.table(cells, colours, rowLabels=names, colLabels=[_short(c.name) for c in shown], loc="upper center")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    if len(columns) > len(shown):
        figure.supxlabel(f"the first {len(shown)} of {len(columns)} columns", fontsize=8)
    return figure


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
