"""Graphs in memory, whatever file they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.data.fingerprint import content, digest, numbers
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.samples import leaves

SHOWN = 100  # damaged graphs that may be left out where nothing is said: this many, or 1 % of more than ten thousand


class GraphSource:
    """A set of graphs.

    Args:
        graphs: All of them; one that is damaged stands there without nodes.
        labels: ``[N]`` int64, -1 = none; None: none has any.
        classes: Names of the classes; None without labels.
        names: What to call each graph in messages.
        damaged: Reasons by position. With any, samples are loaded one by one, so that they are replaced and counted.
        max_damaged: So many of them at most; None: the larger of 100 and 1 %.
        decisions: What was decided about the files, a line each.
    """

    modality = "graph"
    baseline_name = "sums and means of node features"

    def __init__(
        self,
        graphs: Graphs,
        labels: Tensor | None,
        classes: list[str] | None,
        names: Sequence[str],
        damaged: Mapping[int, str] | None = None,
        max_damaged: int | None = None,
        decisions: Sequence[str] = (),
    ) -> None:
        self.graphs = graphs
        self.labels = labels
        self.classes = classes
        self.names = names
        self.damaged = dict(damaged or {})
        self.in_memory = not self.damaged
        self.damage_limit = max(SHOWN, len(graphs) // 100) if max_damaged is None else max_damaged
        self.decisions = list(decisions)

    @property
    def facts(self) -> dict[str, Any]:
        return {"node_features": self.graphs.x.shape[1]}

    def __len__(self) -> int:
        return len(self.graphs)

    def load(self, index: int, hint: Any = None) -> Graphs:
        if index in self.damaged:
            raise DamagedFile(self.names[index], self.damaged[index])
        return self.graphs.select(torch.tensor([index]))

    def fetch(self, index: Tensor) -> Graphs:
        return self.graphs.select(index)

    def collate(self, samples: Sequence[Graphs]) -> Graphs:
        return Graphs.concat(samples)

    def to(self, device: torch.device) -> GraphSource:
        labels = None if self.labels is None else self.labels.to(device)
        names, limit = self.names, self.damage_limit
        return GraphSource(self.graphs.to(device), labels, self.classes, names, self.damaged, limit, self.decisions)

    def fingerprint(self) -> str:
        damaged = "".join(f"{position} " for position in sorted(self.damaged))
        return digest("graphs", numbers(self.labels), damaged, *(content(leaf) for leaf in leaves(self.graphs)))

    def baseline(self, view: Graphs) -> Tensor:
        """``[B, 2 F + 2]``: sum and mean of the features of a graph's nodes, and how many nodes and edges it has.

        The sum of one-hot node labels is their histogram.
        """
        x = view.x.to(torch.promote_types(view.x.dtype, torch.float32))
        total = x.new_zeros(len(view), x.shape[1]).index_add(0, view.graph, x)
        counts = torch.stack([view.nodes, view.edges], 1).to(x.dtype)
        return torch.cat([total, total / counts[:, :1].clamp_min(1), counts], 1)


def ones(graphs: Graphs) -> Tensor:
    """``[N, 1]``: of nodes of which nothing is known (GraphCL)."""
    return torch.ones(len(graphs.graph), 1, device=graphs.nodes.device)


def degrees(graphs: Graphs, highest: int | None = None) -> Tensor:
    """``[N, highest + 1]`` one-hot: edges from each node.

    Args:
        highest: Higher degrees count as this one; None: the highest there is.
    """
    source = graphs.edge_index[0]
    degree = torch.zeros(len(graphs.graph), dtype=torch.int64).index_add_(0, source, torch.ones_like(source))
    top = int(degree.max()) if highest is None else highest
    return torch.nn.functional.one_hot(degree.clamp(max=top), top + 1).float()
