"""Pictures of what a method sees of time series: the first training samples, and the views that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ssl_zoo.augmentations.rng import Draw, stream_key

WIDTH, HEIGHT = 2.6, 1.1  # inches
CHANNELS = 3  # that a picture shows


def save_series_views(data: Any, path: str | Path, rows: int = 6) -> Path:
    """Draw a grid with one row for each series: the series, then its views in the order in which the method gets them.

    Missing numbers are gaps. The draws are those of the first training batch.

    Args:
        data: The data module.
        path: PNG to write; its folder is made.
        rows: At most so many series.

    Returns:
        ``path``.
    """
    positions = torch.tensor(data.first(rows))
    batch = data.train.collate([data.sample(int(index)) for index in positions])
    epoch, slots = data.views.drawn_at(0, torch.arange(len(positions)), positions)
    views, _ = data.views(batch.cpu(), Draw(stream_key(data.seed, "train", epoch), slots))
    titles = ["original", *(f"view {i}, {view.shape[1]} steps" for i, view in enumerate(views))]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid([batch, *views], titles).savefig(path, dpi=100)
    return path


def grid(columns: list[Tensor], titles: list[str]) -> Figure:
    """``[rows, T, C]`` for each column, drawn as lines; all cells of a row have the scale of its largest."""
    rows = len(columns[0])
    figure = Figure(figsize=(len(columns) * WIDTH, rows * HEIGHT + 0.4), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False, sharey="row")
    for column, (series, title) in enumerate(zip(columns, titles, strict=True)):
        axes[0, column].set_title(title, fontsize=8, fontweight="bold" if title == "original" else "normal")
        for row, one in enumerate(series):
            axes[row, column].plot(one[:, :CHANNELS].numpy(), linewidth=0.8)
            axes[row, column].tick_params(labelsize=6)
    if (channels := columns[0].shape[2]) > CHANNELS:
        figure.supxlabel(f"channels 0 to {CHANNELS - 1} of {channels}", fontsize=8)
    return figure
