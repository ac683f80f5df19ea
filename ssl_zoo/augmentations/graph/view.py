"""Batches of graphs of unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_zoo.samples import View


@dataclass
class Graphs(View):
    """Graphs one after the other: their nodes, and their directed edges between them.

    An undirected edge is two. The edges of a graph lie together, in the order of the graphs.
    """

    x: Tensor  # [N, F] features of the nodes
    edge_index: Tensor  # [2, E] int64: from, to; rows of x
    nodes: Tensor  # [B] int64: how many of the N each graph has
    edges: Tensor  # [B] int64: how many of the E

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def graph(self) -> Tensor:
        """``[N]``: of which graph each node is."""
        return numbered(self.nodes)

    @property
    def place(self) -> Tensor:
        """``[N]``: which node of its graph each one is."""
        return places(self.nodes)

    @property
    def first(self) -> Tensor:
        """``[B]``: the first node of each graph."""
        return self.nodes.cumsum(0) - self.nodes

    def select(self, index: Tensor) -> Graphs:
        nodes, edges = self.nodes[index], self.edges[index]
        moved = (nodes.cumsum(0) - nodes) - self.first[index]  # [n]: by how much the numbers of nodes change
        edge_index = self.edge_index[:, members(self.edges, index)] + moved.repeat_interleave(edges)
        return Graphs(self.x[members(self.nodes, index)], edge_index, nodes, edges)

    @classmethod
    def concat(cls, views: Sequence[Graphs]) -> Graphs:
        before, shifted = 0, []
        for view in views:
            shifted.append(view.edge_index + before)
            before += len(view.x)
        x, nodes, edges = (torch.cat([getattr(view, name) for view in views]) for name in ("x", "nodes", "edges"))
        return cls(x, torch.cat(shifted, 1), nodes, edges)

    def with_edges(self, edge_index: Tensor) -> Graphs:
        """The same nodes with these edges ``[2, E']``, in any order, each inside of one graph."""
        graph = self.graph[edge_index[0]]
        edges = torch.zeros_like(self.nodes).index_add_(0, graph, torch.ones_like(graph))
        return Graphs(self.x, edge_index[:, graph.argsort(stable=True)], self.nodes, edges)

    def with_nodes(self, kept: Tensor) -> Graphs:
        """Some of the nodes, and the edges among them.

        Args:
            kept: ``[N']`` int64 rows of ``x``, each once; graph by graph, and in a graph in the order that they get.
        """
        number = torch.full_like(self.graph, -1)
        number[kept] = torch.arange(len(kept), device=kept.device)
        edge_index = number[self.edge_index]  # [2, E], -1: the node is gone
        graph = self.graph[kept]
        nodes = torch.zeros_like(self.nodes).index_add_(0, graph, torch.ones_like(graph))
        among = Graphs(self.x[kept], edge_index[:, :0], nodes, torch.zeros_like(nodes))
        return among.with_edges(edge_index[:, (edge_index >= 0).all(0)])

    def coalesced(self) -> Graphs:
        """The same with each edge once, in the order of the nodes that they are from and to."""
        most = max(len(self.x), 1)
        pair = (self.edge_index[0] * most + self.edge_index[1]).unique()
        return self.with_edges(torch.stack([pair // most, pair % most]))


def numbered(counts: Tensor) -> Tensor:
    """``[sum]``: 0 ``counts[0]`` times, then 1 ``counts[1]`` times, and so on."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def places(counts: Tensor) -> Tensor:
    """``[sum]``: 0 to ``counts[0] - 1``, then 0 to ``counts[1] - 1``, and so on."""
    group = numbered(counts)
    return torch.arange(len(group), device=counts.device) - (counts.cumsum(0) - counts)[group]


def members(counts: Tensor, index: Tensor) -> Tensor:
    """Positions of all that belongs to the groups ``index``, where ``counts`` belong to each and lie together."""
    chosen = counts[index]
    return places(chosen) + (counts.cumsum(0) - counts)[index].repeat_interleave(chosen)
