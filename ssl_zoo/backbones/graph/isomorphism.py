"""Graph isomorphism networks, https://arxiv.org/abs/1810.00826, as InfoGraph and GraphCL build them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.backbones.base import Origin
from ssl_zoo.backbones.graph.base import GraphBackbone
from ssl_zoo.backbones.weights import start_from
from ssl_zoo.backbones.xavier import xavier_
from ssl_zoo.ranges import Size


class Layer(nn.Module):
    """Equation 4.1 of the paper with an epsilon of 0: two linear layers on a node and its neighbours together.

    ``x_v, {x_u: u -> v}`` to ``W_2 relu(W_1 (x_v + sum_u x_u) + b_1) + b_2``.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.nn = nn.Sequential(nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        return self.nn(x.index_add(0, target, x[source]))


class GIN(nn.Module):
    """``Encoder`` of unsupervised_TU/gin.py in Shen-Lab/GraphCL@b4d7501: layers, each with ReLU and then batch norm.

    Args:
        node_features: Width of the features of a node.
        hidden: Width of the layers.
        layers: Their number.
    """

    def __init__(self, node_features: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [node_features, *[hidden] * (layers - 1)]
        self.convs = nn.ModuleList([Layer(width, hidden) for width in widths])
        self.bns = nn.ModuleList([nn.BatchNorm1d(hidden) for _ in widths])
        for norm in self.bns:  # rows are nodes, which groups do not divide: as ssl_zoo.modules.batch_norm.sees says it
            norm.every = None  # type: ignore[assignment]
        xavier_(self)

    def of_nodes(self, view: Graphs) -> list[Tensor]:
        """Outputs of the layers, ``[N, hidden]`` each."""
        x, found = view.x, []
        for conv, norm in zip(self.convs, self.bns, strict=True):
            x = norm(torch.relu(conv(x, view.edge_index)))
            found.append(x)
        return found

    def forward(self, view: Graphs) -> Tensor:
        """``[B, layers * hidden]``: outputs of each layer, summed over the nodes of a graph; 0 of a graph without."""
        x = torch.cat(self.of_nodes(view), 1)  # [N, layers * hidden]
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of hundreds of nodes
        return exact.new_zeros(len(view), x.shape[1]).index_add(0, view.graph, exact)


def gin(
    node_features: Size | None = None, hidden: Size = 32, layers: Size = 3, weights: str | None = None
) -> GraphBackbone:
    """GIN: ``hidden * layers`` features.

    Args:
        node_features: Width of the features of a node; None: filled in by the data.
        hidden, layers: Of :class:`GIN`; 32 and 3 in GraphCL's ``go.sh``.
        weights: RUN or FILE of a network of this shape; None: start anew.
    """
    width = node_features or 1
    arguments = {"node_features": width, "hidden": hidden, "layers": layers}
    origin = Origin("ssl_zoo", f"{__name__}.gin", arguments)
    backbone = GraphBackbone(GIN(width, hidden, layers), origin, hidden * layers, width)
    if weights is not None:
        start_from(backbone, weights)
    return backbone
