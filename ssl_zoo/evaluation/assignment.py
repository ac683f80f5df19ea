"""How well the clusters that a method itself assigns agree with the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ssl_zoo.errors import ConfigError, require
from ssl_zoo.evaluation.baselines import loaders
from ssl_zoo.evaluation.clustering import SPLITS, agreement
from ssl_zoo.features import extract, labelled

if TYPE_CHECKING:
    from ssl_zoo.evaluation.run import Judged


class Assigned(nn.Module):
    """The clusters of a method in the place of features: ``[B, 1]``."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def embed(self, view: Tensor) -> Tensor:
        return self.method.assign_clusters(view)[:, None]


def evaluate(judged: Judged, split: str = "both") -> dict[str, Any]:
    """The protocol of ``conf/protocol/assignment.yaml``: no k-means, the method's own ``assign_clusters(view)``.

    Raises:
        ConfigError: If the method assigns none, or the split is unknown.
    """
    method = judged.method
    if not hasattr(method, "assign_clusters"):
        raise ConfigError(
            f"protocol=assignment: {type(method).__name__} assigns no clusters by itself (mice does); "
            "protocol=clustering finds clusters in the features of any method"
        )
    require("protocol.split", split, SPLITS, ConfigError)
    parts = dict(zip(("train", "test"), loaders(judged.datamodule, validated=split == "test"), strict=True))
    both = [name for name, part in parts.items() if part is not None]  # data.source.split=train+test leaves no test
    names = both if split == "both" else [split]
    found = {name: labelled(*extract(Assigned(method), parts[name], judged.device)[:2]) for name in names}
    clusters, labels = (torch.cat([part[i] for part in found.values()]) for i in range(2))
    clusters = clusters[:, 0].long()
    samples = {name: len(part[1]) for name, part in found.items()}
    return {**agreement(clusters, labels), "clusters": len(clusters.unique()), "split": split, "samples": samples}
