"""The four augmentations of GraphCL, https://arxiv.org/abs/2010.13902 Table 1, and what its code does around them.

Each graph has draws of its own. Without a word the options are the paper's; those of its two codes stand beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.graph import functions
from ssl_zoo.augmentations.graph.view import Graphs, numbered, places
from ssl_zoo.augmentations.registry import register
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.ranges import Rate


def share(counts: Tensor, ratio: float) -> Tensor:
    """``[B]`` int64: this share of each count, rounded down."""
    return (counts.double() * ratio).long()


def number(draw: Tensor, counts: Tensor) -> Tensor:
    """Whole numbers below ``counts`` from uniform numbers in [0, 1), both of one shape; 0 where the count is 0."""
    return torch.minimum((draw.double() * counts).long(), counts - 1).clamp_min(0)


def at_random(counts: Tensor, ratio: float, draw: Draw, name: str) -> tuple[Tensor, Tensor]:
    """A share of what each graph has, any as likely as any other.

    Args:
        counts: ``[B]`` nodes or edges of each graph.

    Returns:
        ``[n]`` the place of each node or edge in a random order of those of its graph; ``[n]`` bool, whether it is
        chosen: those of the first places are.
    """
    group, place = numbered(counts), places(counts)
    rank = functions.rank_within(group, place, draw.uniform(name, int(counts.max()))[group, place])
    return rank, rank < share(counts, ratio)[group]


@register("graph/node_drop")
class NodeDrop(nn.Module):
    """Drop this share of a graph's nodes, with their edges.

    Args:
        ratio: 0.2 in the paper and the semi-supervised code, 0.1 in the unsupervised code.
        remove: False: dropped nodes stay, without edges (unsupervised code).
    """

    def __init__(self, ratio: Rate = 0.2, remove: bool = True) -> None:
        super().__init__()
        self.ratio = ratio
        self.remove = remove

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        _, dropped = at_random(view.nodes, self.ratio, draw, "node")
        return functions.without_nodes(view, dropped, self.remove)


@register("graph/edge_pert")
class EdgePert(nn.Module):
    """Remove this share of a graph's directed edges, and add as many between any two of its nodes.

    Args:
        ratio: 0.2 in the paper and the semi-supervised code, 0.1 in the unsupervised code.
        add: False: only remove (unsupervised code).
    """

    def __init__(self, ratio: Rate = 0.2, add: bool = True) -> None:
        super().__init__()
        self.ratio = ratio
        self.add = add

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        _, dropped = at_random(view.edges, self.ratio, draw, "edge")
        return functions.changed_edges(view, ~dropped, self._added(view, draw) if self.add else None)

    def _added(self, view: Graphs, draw: Draw) -> Tensor:
        counts = share(view.edges, self.ratio)
        graph, place = numbered(counts), places(counts)
        drawn = draw.uniform("added", int(counts.max()), 2)[graph, place].T  # [2, A]
        return view.first[graph] + number(drawn, view.nodes[graph].expand(2, -1))


@register("graph/subgraph")
class Subgraph(nn.Module):
    """A node and this share of a graph's nodes besides, found by a walk from it; the rest is dropped.

    Args:
        ratio: 0.2 in the paper and both codes.
        mode: paper: each further node is any neighbour of those that are there. official: any neighbour of the first
            one, as both codes come to, which forget the neighbours of the others; they draw as often as the graph has
            nodes, and what they have drawn before adds nothing.
        remove: False: dropped nodes stay, without edges (unsupervised code).
    """

    def __init__(self, ratio: Rate = 0.2, mode: Literal["paper", "official"] = "paper", remove: bool = True) -> None:
        super().__init__()
        self.ratio = ratio
        self.mode = mode
        self.remove = remove

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        filled = view.nodes > 0
        start = (view.first + number(draw.uniform("start"), view.nodes))[filled]
        more = share(view.nodes, self.ratio)
        drawn = draw.uniform("walk", int((view.nodes if self.mode == "official" else more).max()))
        if self.mode == "official":
            when = functions.walked(view, start, beside(view, start, drawn[filled]))
        else:
            when = grown(view, start, drawn)
        return functions.subgraph(view, when, more, self.remove)


def beside(view: Graphs, start: Tensor, drawn: Tensor) -> Tensor:
    """``[S, T]`` neighbours of ``start`` ``[S]`` by uniform numbers ``drawn`` ``[S, T]``.

    -1 where there is none, and behind as many draws as the graph has nodes.
    """
    source, target = view.edge_index
    degree = torch.zeros_like(view.graph).index_add_(0, source, torch.ones_like(source))
    first = degree.cumsum(0) - degree
    own = degree[start][:, None].expand_as(drawn)
    at = first[start][:, None] + number(drawn, own)
    turn = torch.arange(drawn.shape[1], device=drawn.device)
    real = (own > 0) & (turn < view.nodes[view.graph[start]][:, None])
    found = target[source.argsort(stable=True)]
    return torch.where(real, found[at.clamp(max=len(found) - 1)], -1) if len(found) else torch.full_like(at, -1)


def grown(view: Graphs, start: Tensor, drawn: Tensor) -> Tensor:
    """``[N]`` when each node is taken (:func:`ssl_zoo.augmentations.graph.functions.walked`), for ``drawn`` ``[B, T]``.

    At each turn every graph takes one neighbour of what it has taken so far, if there is one.
    """
    when = torch.full_like(view.graph, functions.NEVER).index_fill(0, start, -1)
    source, target = view.edge_index
    for turn in range(drawn.shape[1]):
        taken = when < functions.NEVER
        near = torch.zeros_like(taken).index_fill(0, target[taken[source]], True) & ~taken
        count = torch.zeros_like(view.nodes).index_add_(0, view.graph, near.long())
        wanted = number(drawn[:, turn], count)[view.graph]
        before = near.cumsum(0) - near.long()  # of all graphs
        before = before - before[view.first.clamp(max=max(len(before) - 1, 0))][view.graph]
        when = torch.where(near & (before == wanted), turn, when)
    return when


@register("graph/attr_mask")
class AttrMask(nn.Module):
    """Write other features over those of this share of a graph's nodes.

    Args:
        ratio: 0.2 in the paper and the semi-supervised code, 0.1 in the unsupervised code.
        fill: mean: of the graph's nodes (semi-supervised code). normal: with mean 0.5 and deviation 0.5 (unsupervised
            code).
    """

    def __init__(self, ratio: Rate = 0.2, fill: Literal["mean", "normal"] = "mean") -> None:
        super().__init__()
        self.ratio = ratio
        self.fill = fill

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        rank, chosen = at_random(view.nodes, self.ratio, draw, "node")
        nodes = chosen.nonzero().flatten()
        graph = view.graph[nodes]
        if self.fill == "mean":
            return functions.masked(view, nodes, functions.mean_features(view)[graph])
        most = int(share(view.nodes, self.ratio).max())
        noise = draw.normal("value", most, view.x.shape[1])[graph, rank[nodes]]
        return functions.masked(view, nodes, 0.5 + 0.5 * noise)


@register("graph/random_choice")
class RandomChoice(nn.Module):
    """One of several operations for each graph, any as likely as any other: random2, random3, random4 of the code.

    Args:
        ops: As in the list of a view.
    """

    def __init__(self, ops: Sequence[Any]) -> None:
        super().__init__()
        problems = registry.check(ops)
        names = [] if problems else [registry.parse(entry)[0] for entry in ops]
        problems += [f"{name} works on samples of another kind" for name in names if not name.startswith("graph/")]
        if problems or not ops:
            raise ValueError("ops: " + ("; ".join(problems) or "wanted one operation or more"))
        self.ops = nn.ModuleList([registry.build(entry) for entry in ops])

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        choice = draw.integers("choice", len(self.ops))
        parts, order = [], []
        for i, op in enumerate(self.ops):
            rows = (choice == i).nonzero().flatten()
            if len(rows):
                parts.append(op(view.select(rows), of_rows(draw.child(i), rows)))
                order.append(rows)
        return Graphs.concat(parts).select(torch.cat(order).argsort())


def of_rows(draw: Draw, rows: Tensor) -> Draw:
    """The draw of some of its samples."""
    assert draw.slot is not None
    return Draw(draw.key, draw.slot[rows], reports=draw.reports, path=draw.path)


@register("graph/self_loops")
class SelfLoops(nn.Module):
    """An edge from each node to itself, which the unsupervised code adds to every graph that it reads.

    Args:
        last: False: not at the last node of a graph that has an edge, which that code forgets.
    """

    def __init__(self, last: bool = True) -> None:
        super().__init__()
        self.last = last

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        return functions.with_loops(view, self.last)


@register("graph/reindex")
class Reindex(nn.Module):
    """Leave out loops, and nodes without an edge: what the unsupervised code does to a view that it has augmented."""

    def forward(self, view: Graphs, draw: Draw) -> Graphs:
        return functions.reindexed(view)
