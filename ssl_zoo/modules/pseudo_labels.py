"""Labels from density: DBSCAN, and the self-paced choice of clusters that can be trusted (SpCL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.neighbors import sort_graph_by_row_values
from torch import Tensor

from ssl_zoo.modules.rerank import jaccard_distance


class PseudoLabels(NamedTuple):
    """What the authors' loop knows after labelling; arrays are ``[N]``."""

    labels: np.ndarray  # clusters that were kept, and a number of its own for every other sample
    threshold: float | None  # of independence; None while no cluster has been seen
    clusters: np.ndarray  # DBSCAN's at eps, and at the two others; -1 for noise
    tight: np.ndarray
    loose: np.ndarray
    compactness: np.ndarray  # R_comp, float32: 1 - intersection over union with the tight cluster, 0 is best
    independence: np.ndarray  # R_indep, the same with the loose cluster


def self_paced(
    distance: sparse.csr_matrix, eps: float, gap: float, min_samples: int = 4, threshold: float | None = None
) -> PseudoLabels:
    """Pseudo labels by the self-paced criterion, Sec. 3.3 of SpCL, https://arxiv.org/abs/2006.02713.

    As the loop of examples/spcl_train_usl.py of yxgeee/SpCL@01a486e, where scores are ``1 - IoU``, small ones good, the
    inverse of the paper's. A cluster stays if a looser criterion does not merge it with much else (independence up to
    ``threshold``); in it stay the samples that a tighter criterion separates from it least (compactness equal to the
    cluster's best). All others become clusters of one.

    Args:
        distance: ``[N, N]`` as :func:`ssl_zoo.modules.rerank.jaccard_distance` gives it; what is not stored is far.
        eps: Radius of DBSCAN; ``eps - gap`` and ``eps + gap`` are the tight and the loose one.
        gap: In (0, eps), so that all radii are below 1.
        min_samples: Of a dense place, the sample included.
        threshold: Of an earlier epoch; None: the 90th percentile of this one's independence scores.

    Raises:
        ValueError: If a radius does not lie in (0, 1).
    """
    _check_radii(eps, gap)
    distance = sort_graph_by_row_values(distance, copy=True, warn_when_not_sorted=False)  # what DBSCAN asks for
    found = [_dbscan(distance, radius, min_samples) for radius in (eps, eps - gap, eps + gap)]
    labels, tight, loose = (_with_singletons(ids) for ids in found)
    compactness, independence = _dissimilarity(labels, tight), _dissimilarity(labels, loose)
    count = int(labels.max()) + 1
    size = np.bincount(labels, minlength=count)
    best_compactness, best_independence = (_smallest(score, labels, count) for score in (compactness, independence))
    several = np.sort(best_independence[size > 1])
    if threshold is None and len(several):
        threshold = float(several[min(len(several) - 1, int(np.round(len(several) * 0.9)))])
    limit = np.inf if threshold is None else threshold
    kept = (best_independence[labels] <= limit) & (compactness <= best_compactness[labels])
    out = labels.copy()
    out[~kept] = count + np.arange((~kept).sum())
    return PseudoLabels(out, threshold, found[0], found[1], found[2], compactness, independence)


def _check_radii(eps: float, gap: float) -> None:
    if not 0 < eps - gap <= eps + gap < 1:
        raise ValueError(f"eps={eps:g} -+ eps_gap={gap:g} are radii of distances up to 1; wanted numbers in (0, 1)")


@dataclass(frozen=True)
class SelfPaced:
    """:func:`self_paced` on the k-reciprocal distances of features, with the names of the options there.

    Args:
        k1, k2: Of :func:`ssl_zoo.modules.rerank.jaccard_distance`.
    """

    eps: float
    gap: float
    min_samples: int
    k1: int
    k2: int

    def __post_init__(self) -> None:
        _check_radii(self.eps, self.gap)

    def __call__(self, rows: Tensor, threshold: float) -> tuple[Tensor, float]:
        """Labels ``[N]`` of unit rows ``[N, D]``, and the threshold for the next epoch; -1: not known yet."""
        known = None if threshold < 0 else threshold
        distance = jaccard_distance(rows, self.k1, self.k2)
        found = self_paced(distance, self.eps, self.gap, self.min_samples, known)
        return torch.from_numpy(found.labels), -1.0 if found.threshold is None else found.threshold


def _dbscan(distance: sparse.csr_matrix, eps: float, min_samples: int) -> np.ndarray:
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance).astype(np.int64)


def _with_singletons(ids: np.ndarray) -> np.ndarray:
    """Noise becomes clusters of one, numbered after the others."""
    out = ids.copy()
    noise = ids == -1
    out[noise] = ids.max() + 1 + np.arange(noise.sum())
    return out


def _dissimilarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``[N]`` float32: 1 - IoU of the clusters that a sample belongs to in two clusterings."""
    _, pair = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    pair = pair.reshape(-1)
    shared = np.bincount(pair)[pair].astype(np.float32)
    union = np.bincount(a)[a] + np.bincount(b)[b] - shared
    return 1 - shared / union.astype(np.float32)


def _smallest(score: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    out = np.full(count, np.inf, dtype=score.dtype)
    np.minimum.at(out, labels, score)
    return out
