"""views.png of graphs: training graphs, and beside each the views that a method sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.report.views import first_images

CELL = 1.7  # inches
MOST = 400  # nodes of a graph whose places are found by the spectrum; of larger ones they lie on a circle
COLORS = 10  # of kinds of nodes, by their largest feature


def save_graph_views(data: Any, path: str | Path, rows: int = 6) -> Path:
    """Draw the graphs that the first batch of epoch 0 begins with, and the views of the first epoch.

    The colour of a node is its largest feature. Each graph is laid out anew: a view does not say where its nodes came
    from.

    Args:
        data: Data module of graphs.
        path: PNG to write.
        rows: Graphs at most.

    Returns:
        ``path``.
    """
    graphs: Sequence[Any] = first_images(data, rows)
    shown = [[graph, *_views(data, graph, slot)] for slot, graph in enumerate(graphs)]
    titles = ["graph", *(f"view {i}" for i in range(len(shown[0]) - 1))]
    figure = Figure(figsize=(len(titles) * CELL, len(shown) * CELL + 0.3), layout="constrained")
    axes = figure.subplots(len(shown), len(titles), squeeze=False)
    for line, row in zip(axes, shown, strict=True):
        for axis, graph in zip(line, row, strict=True):
            draw(axis, graph)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8, fontweight="bold" if title == "graph" else "normal")
    figure.savefig(path, dpi=100)
    return Path(path)


def _views(data: Any, graph: Graphs, slot: int) -> Sequence[Graphs]:
    draw = Draw(stream_key(data.seed, "train", epoch=0), torch.tensor([slot]))
    return [view.to("cpu") for view in data.views.full(graph, draw)]


def draw(axis: Axes, graph: Graphs) -> None:
    """Nodes and edges of one graph, and how many there are."""
    place = layout(graph)
    source, target = graph.edge_index.numpy()
    proper = source != target
    axis.add_collection(LineCollection(place[graph.edge_index.numpy().T[proper]], colors="0.6", linewidths=0.6))
    colors = graph.x.argmax(1).numpy() % COLORS if graph.x.shape[1] > 1 else np.zeros(len(place))
    axis.scatter(place[:, 0], place[:, 1], c=colors, cmap="tab10", vmin=0, vmax=COLORS - 1, s=9, zorder=2, linewidths=0)
    axis.set_xlabel(f"{len(place)} nodes, {int(proper.sum())} directed edges", fontsize=6, labelpad=1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_aspect("equal", "datalim")
    axis.margins(0.1)
    for side in axis.spines.values():
        side.set_color("0.9")


def layout(graph: Graphs) -> np.ndarray:
    """``[N, 2]`` places of the nodes of one graph: each connected part by its spectrum, the parts side by side."""
    nodes = len(graph.x)
    if nodes > MOST:
        angle = 2 * np.pi * np.arange(nodes) / nodes
        return np.stack([np.cos(angle), np.sin(angle)], 1) * nodes
    source, target = graph.edge_index.numpy()
    around = np.zeros((nodes, nodes), dtype=bool)
    around[source, target] = around[target, source] = True
    np.fill_diagonal(around, False)
    place, corner, lowest = np.zeros((nodes, 2)), np.zeros(2), 0.0
    wide = 1.5 * nodes**0.5  # what does not fit beside the others begins a new line
    for part in _parts(around):
        own = _spectral(around[np.ix_(part, part)])
        width, height = np.ptp(own, axis=0)
        if corner[0] > 0 and corner[0] + width > wide:
            corner = np.array([0.0, lowest - 1.0])
        place[part] = own - [own[:, 0].min(), own[:, 1].max()] + corner
        lowest = min(lowest, corner[1] - height)
        corner[0] += width + 1.0
    return place


def _parts(around: np.ndarray) -> list[np.ndarray]:
    """Connected parts, the largest first."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    _, part = connected_components(csr_matrix(around), directed=False)
    found = [np.flatnonzero(part == i) for i in range(int(part.max(initial=-1)) + 1)]
    return sorted(found, key=len, reverse=True)


def _spectral(around: np.ndarray) -> np.ndarray:
    """Of a connected graph: the eigenvectors of the two smallest eigenvalues of its Laplacian above 0."""
    count = len(around)
    if count < 3:
        return np.arange(count)[:, None] * [1.0, 0.0]
    degree = around.sum(1)
    scaled = np.eye(count) - around / np.sqrt(np.outer(degree, degree))
    vectors = np.linalg.eigh(scaled)[1][:, 1:3] / np.sqrt(degree)[:, None]
    spread = np.ptp(vectors, axis=0)
    return vectors / np.where(spread > 0, spread, 1.0) * count**0.5
