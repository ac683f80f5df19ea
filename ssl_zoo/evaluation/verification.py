"""Verification with frozen features: whether two samples are of one class, by their similarity alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import auc, roc_curve
from torch import Tensor

from ssl_zoo.errors import ConfigError, require
from ssl_zoo.features import Features, labelled
from ssl_zoo.ranges import Part, Size

Similarity = Literal["cosine", "euclidean"]
BLOCK = 2**16  # pairs compared at a time
POINTS = 200  # of the curve that is kept, at most
BINS = 60


class Pairs(NamedTuple):
    """Two samples each, of one label or not."""

    first: Tensor  # [P] row
    second: Tensor  # [P] row
    same: Tensor  # [P] bool


def choose_pairs(labels: Tensor, most: int, balanced: bool, seed: int = 0) -> Pairs:
    """Different pairs of samples: all of them, or a random choice.

    Args:
        labels: ``[N]`` int64, all known.
        most: Pairs at most.
        balanced: As many of one label as of two; else in the proportion that they have.
        seed: Of the choice.

    Raises:
        ValueError: If no two samples have one label, or all have.
    """
    ordered, order = labels.sort(stable=True)
    row = torch.arange(len(labels))
    end = torch.searchsorted(ordered, ordered, right=True)                           # [N] where a sample's label ends
    partners = (end - row - 1, len(labels) - end)                                    # 2 x [N] of one label, of two
    there = [int(count.sum()) for count in partners]
    if not all(there):
        raise ValueError(
            f"wanted pairs of one label and pairs of two, and the {len(labels)} labelled samples make {there[0]:,} and "
            f"{there[1]:,}; it takes two classes, one of them with two samples"
        )
    draws = random.Random(seed)
    if balanced:
        count = min(*there, most // 2)
        picked = [_sample(draws, total, count) for total in there]
    else:
        drawn = _sample(draws, sum(there), most)
        picked = [drawn[drawn < there[0]], drawn[drawn >= there[0]] - there[0]]
    starts = (row + 1, end)
    found = [_decoded(*part) for part in zip(picked, partners, starts, strict=True)]
    first, second = (order[torch.cat(part)] for part in zip(*found, strict=True))
    return Pairs(first, second, torch.arange(len(first)) < len(picked[0]))


def _sample(draws: random.Random, total: int, count: int) -> Tensor:
    """``count`` different numbers below ``total``, all where it has no more."""
    return torch.arange(total) if count >= total else torch.tensor(sorted(draws.sample(range(total), count)))


def _decoded(number: Tensor, partners: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Row and partner of the pairs with these numbers: row by row, partners from ``start`` on."""
    ends = partners.cumsum(0)
    row = torch.searchsorted(ends, number, right=True)
    return row, start[row] + number - (ends - partners)[row]


def similarities(x: Tensor, pairs: Pairs, similarity: Similarity) -> np.ndarray:
    """``[P]`` cosine, or the negative distance, of each pair of rows of ``x`` ``[N, F]``."""
    x = F.normalize(x.double(), dim=1) if similarity == "cosine" else x.double()
    found = []
    for a, b in zip(pairs.first.split(BLOCK), pairs.second.split(BLOCK), strict=True):
        one, other = x[a.to(x.device)], x[b.to(x.device)]
        found.append((one * other).sum(1) if similarity == "cosine" else -(one - other).square().sum(1).sqrt())
    return torch.cat(found).cpu().numpy()


def equal_error_rate(fpr: np.ndarray, tpr: np.ndarray) -> float:
    """Where as many pairs of two labels are accepted as pairs of one are not, between two points of the curve."""
    gap = fpr + tpr - 1  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def best_threshold(same: np.ndarray, scores: np.ndarray) -> float:
    """The score from which on pairs should be called the same, so that most of these are called right."""
    fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    right = tpr * same.sum() + (1 - fpr) * (~same).sum()
    best = int(np.argmax(right))
    return float(thresholds[best]) if best else float(np.nextafter(scores.max(), np.inf))


def evaluate(
    train: Features,
    test: Features,
    classes: int,
    similarity: Similarity = "cosine",
    balanced: bool = True,
    most: Size = 1_000_000,
    threshold: float | None = None,
    fpr: Sequence[Part] = (0.001, 0.01, 0.1),
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The protocol of ``conf/protocol/verification.yaml``: pairs of validation samples, as Chopra et al. 2005 (Sec. 4).

    Args:
        threshold: Of the accuracy; None: the best one on pairs of the training set, chosen as those of the validation
            set.
        fpr: Shares of pairs of two labels that are accepted.

    Returns:
        In percent: ``eer``, ``auc`` (scikit-learn's ``roc_curve``), ``acc`` at ``threshold``, and ``tpr_at_<fpr>``, the
        highest one with no more false positives than that; ``pairs`` of each kind, the ``curve`` (at most 200 points),
        and the ``scores`` of both kinds by bins.

    Raises:
        ConfigError: On an unknown similarity.
        ValueError: If there are no pairs of both kinds.
    """
    require("protocol.similarity", similarity, get_args(Similarity), ConfigError)
    same, scores = _scored(test, similarity, balanced, most, seed, device)
    false, true, _ = roc_curve(same, scores)
    if threshold is None:
        try:
            threshold = best_threshold(*_scored(train, similarity, balanced, most, seed, device))
        except ValueError as error:
            raise ValueError(f"the threshold is of training samples: {error}; or set protocol.threshold") from error
    return {
        "eer": 100 * equal_error_rate(false, true),
        "auc": 100 * float(auc(false, true)),
        "acc": 100 * float(((scores >= threshold) == same).mean()),
        "threshold": threshold,
        **{f"tpr_at_{share:g}": 100 * float(true[false <= share].max()) for share in fpr},
        "similarity": similarity,
        "pairs": {"same": int(same.sum()), "different": int((~same).sum())},
        "curve": _thinned(false, true),
        "scores": _binned(same, scores),
    }


def _scored(
    part: Features, similarity: Similarity, balanced: bool, most: int, seed: int, device: torch.device | str
) -> tuple[np.ndarray, np.ndarray]:
    """Whether pairs are of one label, and their similarity, both ``[P]``."""
    x, labels = labelled(part.features, part.labels)
    pairs = choose_pairs(labels, most, balanced, seed)
    return pairs.same.numpy(), similarities(x.to(device), pairs, similarity)


def _thinned(fpr: np.ndarray, tpr: np.ndarray) -> dict[str, list[float]]:
    """Points of the curve that lie about as far from one another, both ends among them."""
    way = (fpr + tpr) / 2  # how far along the curve, 0 to 1
    kept = np.unique(np.searchsorted(way, np.linspace(0, 1, POINTS)).clip(0, len(way) - 1))
    return {"fpr": fpr[kept].round(6).tolist(), "tpr": tpr[kept].round(6).tolist()}


def _binned(same: np.ndarray, scores: np.ndarray) -> dict[str, list[float]]:
    edges = np.histogram_bin_edges(scores, BINS)
    both = {"same": same, "different": ~same}
    return {"edges": edges.tolist(), **{k: np.histogram(scores[own], edges)[0].tolist() for k, own in both.items()}}
