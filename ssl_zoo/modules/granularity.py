"""One clustering of the training set: what the E-step of an epoch leaves for its M-steps (PCL)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.losses.prototypical import concentration_of
from ssl_zoo.modules.float32 import Float32State
from ssl_zoo.modules.kmeans import Clusters


class Granularity(Float32State):
    """Assignment, prototypes and their concentrations, in buffers: a resumed run does not cluster again.

    Args:
        samples: N, of the training set.
        clusters: K.
        dim: Width of a prototype.
    """

    assignment: Tensor
    prototypes: Tensor
    concentration: Tensor

    def __init__(self, samples: int, clusters: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("assignment", torch.zeros(samples, dtype=torch.int64))
        self.register_buffer("prototypes", torch.zeros(clusters, dim))
        self.register_buffer("concentration", torch.ones(clusters))
        self.filled = False  # a Python flag, so that asking for it never waits for the device

    def get_extra_state(self) -> dict[str, bool]:
        return {"filled": self.filled}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        self.filled = state["filled"]

    def fill(self, found: Clusters, temperature: float, smoothing: float) -> None:
        """Keep what k-means found; ``temperature`` and ``smoothing`` as in :func:`concentration_of`."""
        k = len(self.prototypes)
        phi = concentration_of(found.distance, found.assignment, k, temperature, smoothing)
        self.assignment.copy_(found.assignment)
        self.prototypes.copy_(nn.functional.normalize(found.centroids, dim=1))
        self.concentration.copy_(phi)
        self.filled = True

    def negatives(self, positives: Tensor, count: int, draw: Draw) -> Tensor:
        """``[count]`` different prototypes, none of them among ``positives``."""
        order = draw.permutation(len(self.prototypes)).to(positives.device)                  # [K]
        taken = torch.zeros_like(order).index_fill_(0, positives, 1)
        return order[taken[order].argsort(stable=True)[:count]]


def check_clusters(clusters: Sequence[int], negatives: int, rows: int, samples: int) -> None:
    """Whether ``negatives`` prototypes are left beside those of a batch of ``rows``, and samples enough for all.

    Raises:
        ValueError: If not, with numbers that fit.
    """
    if not clusters:
        raise ValueError("method.clusters is empty; wanted one number of prototypes or more, for example [1000]")
    least = negatives + rows  # no sample of the batch shares its prototype, at worst
    if min(clusters) < least:
        raise ValueError(
            f"method.clusters={list(clusters)}: {min(clusters)} prototypes are fewer than method.negatives={negatives} "
            f"and one for each of {rows} samples; try method.negatives={max(min(clusters) // 4, 1)}, "
            f"or {least} clusters"
        )
    if max(clusters) > samples:
        fits = [max(samples * count // (2 * max(clusters)), 1) for count in clusters]
        raise ValueError(
            f"method.clusters={list(clusters)}: {max(clusters)} prototypes are more than the {samples} training "
            f"samples; try method.clusters={fits}"
        )
