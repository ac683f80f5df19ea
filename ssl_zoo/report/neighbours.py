"""neighbours.png: images and those that a network finds nearest, trained and untrained: what it calls alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ssl_zoo.evaluation.label_free import rows_of
from ssl_zoo.features import Features
from ssl_zoo.knn import nearest_others
from ssl_zoo.report.views import CELL, brightening, denormalize, drawn, mosaic, picture

QUERIES, NEIGHBOURS = 6, 7
NAMES, TITLE = 1.3, 0.5  # room for the names of the networks, in pictures, and for the title, in inches


def save_neighbours(
    data: Any, found: Mapping[str, Features], path: str | Path, queries: int = QUERIES, neighbours: int = NEIGHBOURS
) -> Path:
    """Draw training images and their nearest neighbours by cosine similarity, nearest first.

    Args:
        data: Data module, whose evaluation views are shown.
        found: Features of the same two or more training images by the name of their network; one row for each.
        path: PNG to write.
        queries: Images that are asked for, evenly spaced over the training set.
        neighbours: Of each; all others where there are fewer.

    Returns:
        ``path``.
    """
    position = next(iter(found.values())).position
    asked = rows_of(len(position), queries)
    nearest = {name: nearest_others(x.features, neighbours) for name, x in found.items()}
    near = {name: (score[asked], where[asked]) for name, (score, where) in nearest.items()}
    shown = _pictures(data, position, torch.cat([asked, *(where.flatten() for _, where in near.values())]).unique())
    gain = brightening(shown.values())
    shown = {row: np.minimum(image * gain, 1) for row, image in shown.items()}
    width, lines = 1 + next(iter(near.values()))[1].shape[1], len(near)
    size = (width + NAMES) * CELL, len(asked) * lines * CELL + TITLE
    figure = Figure(figsize=size)  # whose layout is known: to find one for a hundred pictures takes seconds
    figure.subplots_adjust(NAMES / (width + NAMES), 0.01, 0.99, 1 - TITLE / size[1], wspace=0.06, hspace=0.16)
    axes = figure.subplots(len(asked) * lines, width, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, query in enumerate(asked.tolist()):
        for j, (name, (score, where)) in enumerate(near.items()):
            line = axes[i * lines + j]
            _draw(line[0], shown[query], "image" if j == 0 else "")
            line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
            for axis, row, similarity in zip(line[1:], where[i].tolist(), score[i].tolist(), strict=True):
                _draw(axis, shown[row], f"{similarity:.3f}")
    told = drawn(data.channels, gain)
    title = f"Nearest neighbours among the training images (cosine similarity{f'; {told}' if told else ''})"
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / size[1])
    figure.savefig(path, dpi=100)
    return Path(path)


def _pictures(data: Any, position: Tensor, rows: Tensor) -> dict[int, np.ndarray]:
    """Pictures of some of the images at ``position``, by their place there."""
    shown: dict[int, np.ndarray] = {}
    place = {int(position[row]): int(row) for row in rows}
    for views, _, index in data.train_eval_loader(position[rows]):
        for view, number in zip(views, index.tolist(), strict=True):
            shown[place[number]] = picture(mosaic(denormalize(view, data.eval_view.normalize)))
    return shown


def _draw(axis: Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=7, pad=2)
