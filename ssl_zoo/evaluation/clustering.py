"""How well clusters of frozen features agree with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from ssl_zoo.errors import ConfigError, require
from ssl_zoo.features import Features, labelled
from ssl_zoo.modules.kmeans import kmeans
from ssl_zoo.ranges import Size

SPLITS = ("test", "train", "both")


def matched_accuracy(assignment: Tensor, labels: Tensor) -> float:
    """Share of samples in the cluster that stands for their class, in percent.

    Clusters and classes are matched one to one so that the share is largest (Kuhn 1955,
    https://doi.org/10.1002/nav.3800020109); with more clusters than classes some stand for none.

    Args:
        assignment, labels: ``[N]`` int64, not negative.
    """
    table = np.zeros((int(assignment.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(table, (assignment.cpu().numpy(), labels.cpu().numpy()), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return 100.0 * float(table[rows, columns].sum()) / len(labels)


def agreement(assignment: Tensor, labels: Tensor) -> dict[str, float]:
    """``acc``, ``nmi`` (arithmetic mean of the entropies) and ``ari`` (0 by chance), all times 100."""
    found, known = assignment.cpu().numpy(), labels.cpu().numpy()
    return {
        "acc": matched_accuracy(assignment, labels),
        "nmi": 100.0 * float(normalized_mutual_info_score(known, found)),
        "ari": 100.0 * float(adjusted_rand_score(known, found)),
    }


def evaluate(
    train: Features,
    test: Features,
    classes: int,
    split: Literal["test", "train", "both"] = "test",
    clusters: int | None = None,
    normalize: bool = True,
    seeds: Sequence[int] = (0, 1, 2),
    redo: Size = 10,
    iterations: Size = 100,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/clustering.yaml``: k-means, then :func:`agreement`, for several seeds.

    Returns:
        Means over the seeds, ``<measure>_std`` (of the seeds, not of their mean) and ``by_seed``.

    Raises:
        ConfigError: On an unknown split, no seed, or more clusters than samples.
    """
    require("protocol.split", split, SPLITS, ConfigError)
    if not seeds:
        raise ConfigError("protocol.seeds is empty; wanted one seed or more, for example [0, 1, 2]")
    parts = {"test": [test], "train": [train], "both": [train, test]}[split]
    features, labels = (torch.cat([part[i] for part in parts]) for i in range(2))
    features, labels = labelled(features, labels)
    count = classes if clusters is None else clusters
    if not 1 <= count <= len(features):
        more = "" if split == "both" else "; protocol.split=both counts the training samples too"
        raise ConfigError(
            f"protocol.clusters={count}: wanted 1 to {len(features)}, the labelled samples of {split}{more}"
        )
    features = F.normalize(features.float(), dim=1) if normalize else features
    by_seed: dict[str, dict[str, float]] = {}
    for seed in seeds:
        found = kmeans(features, count, iterations, redo, seed, init="++", device=device)
        by_seed[str(seed)] = agreement(found.assignment.cpu(), labels)
    names = ("acc", "nmi", "ari")
    columns = {name: np.array([row[name] for row in by_seed.values()]) for name in names}
    means = {name: float(column.mean()) for name, column in columns.items()}
    spread = {f"{name}_std": float(column.std()) for name, column in columns.items()}
    return {**means, **spread, "clusters": count, "split": split, "by_seed": by_seed}
