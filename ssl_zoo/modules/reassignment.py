"""Labels that a clustering gives to every training sample, again and again."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn


class Reassignment(nn.Module):
    """Pseudo labels between two clusterings, in buffers: a resumed run does not cluster again (DeepCluster).

    Until the first clustering the samples have the labels 0, 1, 2, ... in turn, which no run trains on.

    Args:
        samples: N, of the training set.
        clusters: At most.
    """

    labels: Tensor  # [N] int64
    agreement: Tensor  # [] normalised mutual information with the labels before

    def __init__(self, samples: int, clusters: int) -> None:
        super().__init__()
        self.clusters = clusters
        self.register_buffer("labels", torch.arange(samples) % clusters)
        self.register_buffer("agreement", torch.zeros(()))
        self.replaced = 0  # times; a Python number, so that asking for it never waits for the device

    def get_extra_state(self) -> dict[str, int]:
        return {"replaced": self.replaced}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.replaced = state["replaced"]

    @torch.no_grad()
    def replace(self, found: Tensor) -> None:
        """Take the clusters ``[N]`` that were found, numbered anew without the empty ones.

        With more than there are labels, the smallest share the last one.
        """
        new = fold(compact(found.cpu()), self.clusters)
        self.agreement.fill_(float(normalized_mutual_info_score(self.labels.cpu().numpy(), new.numpy())))
        self.labels.copy_(new)
        self.replaced += 1


def compact(labels: Tensor) -> Tensor:
    """``[N]`` the same parts, numbered 0, 1, ... in the order of the old numbers: ``ReassignedDataset``."""
    return labels.unique(return_inverse=True)[1]


def fold(labels: Tensor, most: int) -> Tensor:
    """``[N]`` labels without gaps; if there are more than ``most``, the smallest parts are one, the last."""
    size = labels.bincount()
    if len(size) <= most:
        return labels
    rank = size.argsort(descending=True, stable=True).argsort()
    return rank[labels].clamp_max(most - 1)


def by_cluster(labels: Tensor) -> Tensor:
    """``[N]`` samples, cluster by cluster: the order of ``ReassignedDataset``."""
    return labels.argsort(stable=True)


def shuffled_groups(labels: Tensor) -> Tensor:
    """``[N]`` groups over which the authors' sampling is uniform in place of ``labels``.

    Their ``UnifLabelSampler`` draws a position in the data set for each label, but the data set that it reads has been
    reordered cluster by cluster: the sample read is the one at that place.
    """
    return torch.empty_like(labels).scatter_(0, by_cluster(labels), labels)
