"""What is done to graphs once it is decided to which nodes and edges: no random numbers.

The decisions come as arguments, so that recorded ones can be fed in. Sources are files of Shen-Lab/GraphCL@b4d7501:
``unsupervised_TU`` and ``semisupervised_TU``, the code of https://arxiv.org/abs/2010.13902.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.augmentations.graph.view import Graphs

NEVER = 2**62


def without_nodes(view: Graphs, dropped: Tensor, remove: bool) -> Graphs:
    """Drop nodes and the edges from and to them.

    Args:
        dropped: ``[N]`` bool.
        remove: The nodes go, and the others close ranks (``drop_nodes`` of the semi-supervised code); False: they stay
            without edges (of the unsupervised code).
    """
    if remove:
        return view.with_nodes((~dropped).nonzero().flatten())
    return view.with_edges(view.edge_index[:, ~dropped[view.edge_index].any(0)])


def changed_edges(view: Graphs, kept: Tensor, added: Tensor | None = None) -> Graphs:
    """Keep some of the edges and add others.

    Args:
        kept: Which columns of ``edge_index``: positions, or ``[E]`` bool.
        added: ``[2, A]`` edges inside of graphs; None: none, as the unsupervised code.
    """
    edges = view.edge_index[:, kept]
    return view.with_edges(edges if added is None else torch.cat([edges, added], 1))


def masked(view: Graphs, nodes: Tensor, values: Tensor) -> Graphs:
    """The same graphs with the features ``values`` ``[n, F]`` of the nodes ``[n]``."""
    return Graphs(view.x.index_copy(0, nodes, values.to(view.x.dtype)), view.edge_index, view.nodes, view.edges)


def mean_features(view: Graphs) -> Tensor:
    """``[B, F]``: mean features of each graph's nodes, what the semi-supervised code writes over masked ones."""
    total = view.x.new_zeros(len(view), view.x.shape[1]).index_add(0, view.graph, view.x)
    return total / view.nodes.clamp_min(1)[:, None]


def walked(view: Graphs, start: Tensor, draws: Tensor) -> Tensor:
    """``[N]`` int64: at which draw a node is taken first, -1 the starts, ``NEVER`` the others.

    Args:
        start: ``[S]`` nodes.
        draws: ``[S, T]`` nodes that are drawn one after the other; -1: none.
    """
    when = torch.full_like(view.graph, NEVER)
    turn = torch.arange(draws.shape[1], device=draws.device).expand_as(draws)
    when.scatter_reduce_(0, draws[draws >= 0], turn[draws >= 0], "amin")
    return when.index_fill(0, start, -1)


def subgraph(view: Graphs, when: Tensor, more: Tensor, remove: bool) -> Graphs:
    """The first nodes of a walk, with the edges among them.

    Args:
        when: ``[N]`` as :func:`walked` gives it.
        more: ``[B]`` int64: so many nodes besides the start at most.
        remove: The others go, and what stays gets the order of the walk (``subgraph`` of the semi-supervised code);
            False: they stay without edges (of the unsupervised code).
    """
    rank = ranks(view, when)
    kept = (when < NEVER) & (rank <= more[view.graph])
    if not remove:
        return without_nodes(view, ~kept, False)
    nodes = kept.nonzero().flatten()
    return view.with_nodes(nodes[(view.first[view.graph] + rank)[nodes].argsort()])


def ranks(view: Graphs, key: Tensor) -> Tensor:
    """``[N]``: the place of each node among those of its graph when they are sorted by ``key`` ``[N]``."""
    return rank_within(view.graph, view.place, key)


def rank_within(group: Tensor, place: Tensor, key: Tensor) -> Tensor:
    """The place of each element among those of its group when they are sorted by ``key``.

    Args:
        group: ``[n]`` int64, which group each is of: groups lie together, in increasing order.
        place: ``[n]`` int64, its place there.
        key: ``[n]``; equal ones keep their order.
    """
    order = key.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    return torch.empty_like(order).scatter_(0, order, place)


def with_loops(view: Graphs, last: bool) -> Graphs:
    """An edge from each node to itself besides the edges there are.

    Args:
        last: Also at the last node of a graph that has an edge, and behind it: ``TUDataset_aug.get`` of the
            unsupervised code stops before it.
    """
    nodes = torch.arange(len(view.graph), device=view.nodes.device)
    if not last:
        end = view.first.scatter_reduce(0, view.graph[view.edge_index[0]], view.edge_index.amax(0), "amax")
        nodes = nodes[nodes < end[view.graph]]
    return view.with_edges(torch.cat([view.edge_index, nodes.expand(2, -1)], 1))


def reindexed(view: Graphs) -> Graphs:
    """Without loops, and without nodes that no edge touches (a loop counts): ``gsimclr.py`` of the unsupervised code.

    A graph may lose all its nodes.
    """
    touched = torch.zeros_like(view.graph, dtype=torch.bool).index_fill(0, view.edge_index.flatten(), True)
    left = view.with_nodes(touched.nonzero().flatten())
    return left.with_edges(left.edge_index[:, left.edge_index[0] != left.edge_index[1]])
