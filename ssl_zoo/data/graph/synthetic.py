"""Graphs that are drawn, not measured: for tests, timings and trying a configuration without any file."""

from __future__ import annotations

import numpy as np
import torch

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.data.graph.source import GraphSource
from ssl_zoo.data.source import Splits
from ssl_zoo.data.splits import seed_of
from ssl_zoo.ranges import Count, Rate, Size

SHAPES = ("ring", "star", "ladder", "clique")
SMALLEST, LARGEST = 8, 16  # nodes


def synthetic_graph(
    samples: Size = 512,
    val_samples: Count = 128,
    kinds: Size = 4,
    noise: Rate = 0.1,
    seed: int = 0,
    root: str | None = None,
    download: bool = False,
) -> Splits:
    """Rings, stars, ladders, and rings with a clique of five in them: 8 to 16 nodes of random kinds.

    Args:
        samples, val_samples: Graphs; the shapes take turns.
        kinds: Of nodes, one-hot; they say nothing of the shape.
        noise: Share of its undirected edges that a graph has besides, between any nodes.
        seed: Of the graphs, not of the training.
    """

    def drawn(count: int, name: str) -> GraphSource:
        random = np.random.RandomState(seed_of("graphs", name, seed) % 2**32)
        labels = torch.arange(count) % len(SHAPES)
        graphs = Graphs.concat([_graph(SHAPES[label], kinds, noise, random) for label in labels.tolist()])
        return GraphSource(graphs, labels, list(SHAPES), [f"{name} graph {i}" for i in range(count)])

    return Splits(drawn(samples, "train"), drawn(val_samples, "val") if val_samples else None)


def _graph(shape: str, kinds: int, noise: float, random: np.random.RandomState) -> Graphs:
    count = int(random.randint(SMALLEST // 2, LARGEST // 2 + 1)) * 2  # a ladder has two sides
    pairs = np.array(_pairs(shape, count)).T
    extra = random.randint(0, count, (2, int(noise * pairs.shape[1] + random.uniform())))
    pairs = np.concatenate([pairs, extra[:, extra[0] != extra[1]]], 1)
    pairs = random.permutation(count)[np.concatenate([pairs, pairs[::-1]], 1)]
    x = torch.eye(kinds)[torch.from_numpy(random.randint(0, kinds, count))]
    alone = Graphs(x, torch.empty(2, 0, dtype=torch.int64), torch.tensor([count]), torch.tensor([0]))
    return alone.with_edges(torch.from_numpy(pairs).long()).coalesced()


def _pairs(shape: str, count: int) -> list[tuple[int, int]]:
    ring = [(i, (i + 1) % count) for i in range(count)]
    half = count // 2
    side = [(i, i + 1) for i in range(half - 1)]
    return {
        "ring": ring,
        "star": [(0, i) for i in range(1, count)],
        "ladder": side + [(i + half, j + half) for i, j in side] + [(i, i + half) for i in range(half)],
        "clique": ring + [(i, j) for i in range(5) for j in range(i + 2, 5)],
    }[shape]
