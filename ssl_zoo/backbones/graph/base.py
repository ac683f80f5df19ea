"""What encoders of graphs have in common."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.augmentations.graph.view import Graphs
from ssl_zoo.backbones.base import Backbone, Origin
from ssl_zoo.errors import ConfigError


class GraphBackbone(Backbone):
    """An encoder of graphs: :class:`ssl_zoo.augmentations.graph.view.Graphs` to ``[B, out_features]``.

    Args:
        net, origin, out_features: As of :class:`ssl_zoo.backbones.base.Backbone`.
        node_features: Width of the features of a node.
    """

    def __init__(self, net: Any, origin: Origin, out_features: int, node_features: int) -> None:
        super().__init__(net, origin, out_features)
        self.node_features = node_features

    def check(self, view: Any) -> None:
        got = view.x.shape[1] if isinstance(view, Graphs) else None
        if got != self.node_features:
            found = f"views of {type(view).__name__}" if got is None else f"nodes of {got} features"
            raise ConfigError(
                f"backbone {self.name!r} was built for nodes of {self.node_features} features and gets {found}; take "
                "data whose nodes have as many, or train with features that both have: data.source.features=degrees "
                "data.source.highest_degree=N, or data.source.features=ones"
            )

    def example(self) -> Graphs:
        x = torch.rand(5, self.node_features, generator=torch.Generator().manual_seed(0))
        path = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
        return Graphs(x, path, torch.tensor([3, 2]), torch.tensor([4, 2]))
