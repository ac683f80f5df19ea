"""Where the nodes of a drawn graph lie, and the picture of views."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imread

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.augmentations.graph.views import GraphViews
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.graph.synthetic import synthetic_graph
from ssl_zoo.report.graphs import layout, save_graph_views
from ssl_zoo.report.views import draw_views


def graph(nodes: int, pairs: list[tuple[int, int]]) -> Graphs:
    edges = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return Graphs(torch.ones(nodes, 1), edges, torch.tensor([nodes]), torch.tensor([edges.shape[1]]))


def test_a_ring_is_drawn_as_a_ring() -> None:
    place = layout(graph(8, [(i, (i + 1) % 8) for i in range(8)]))
    radius = np.linalg.norm(place - place.mean(0), axis=1)
    sides = np.linalg.norm(place - np.roll(place, 1, 0), axis=1)
    assert radius.std() < 0.2 * radius.mean() and sides.std() < 0.3 * sides.mean()


def test_nodes_have_places_of_their_own_whatever_the_graph() -> None:
    for nodes, pairs in ((1, []), (2, [(0, 1)]), (30, []), (9, [(0, 1), (1, 2), (3, 4), (5, 5)]), (500, [(0, 1)])):
        place = layout(graph(nodes, pairs))
        apart = np.linalg.norm(place[:, None] - place[None], axis=2) + np.eye(nodes)
        assert place.shape == (nodes, 2) and np.isfinite(place).all() and apart.min() > 0.05
    assert layout(graph(0, [])).shape == (0, 2)
    assert np.ptp(layout(graph(100, []))[:, 0]) < 60  # lonely nodes make no row of a hundred


def test_views_of_graphs_are_drawn(tmp_path: Path) -> None:
    views = [{"ops": []}, {"ops": [{"graph/node_drop": {"ratio": 0.5}}, {"graph/reindex": {}}]}]
    data = DataModule(partial(synthetic_graph, samples=8, val_samples=0), 4, GraphViews(views, {"ops": []}))
    assert draw_views(data, tmp_path / "views.png") == tmp_path / "views.png"
    assert imread(tmp_path / "views.png").shape[:2] == (6 * 170 + 30, 3 * 170)
    few = imread(save_graph_views(data, tmp_path / "few.png", rows=2))
    assert few.shape[0] == 370 and few.std() > 0.05
