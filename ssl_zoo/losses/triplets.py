"""Triplets: a sample is nearer to its positive than to a negative, by a margin."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_zoo.losses.pairs import distances, mean_of
from ssl_zoo.losses.precision import full_precision


@full_precision
def triplet_margin(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, squared: bool = True) -> Tensor:
    """``max(0, d(a, p) - d(a, n) + margin)`` of given triplets: ``[B, D]`` each to ``[B]``.

    Args:
        anchor, positive, negative: Embeddings of any length.
        margin: > 0.
        squared: Squared Euclidean distances, as FaceNet (https://arxiv.org/abs/1503.03832, eq. 1) and ``TripletLoss``
            of adambielski/siamese-triplet@0c719f9. False: distances, as ``torch.nn.TripletMarginLoss``.
    """
    near, far = (between(anchor, other, squared).diagonal() for other in (positive, negative))
    return (near - far + margin).relu()


def between(a: Tensor, b: Tensor, squared: bool) -> Tensor:
    """``[A, B]`` distances that triplets compare; those that are not squared have torch's shift of 1e-6."""
    return distances(a, b).square() if squared else distances(a, b, shift=1e-6)


class Triplets(NamedTuple):
    """Every pair of an anchor and a positive, with every sample as its negative."""

    value: Tensor  # [P, N] d(a, p) - d(a, n) + margin
    negative: Tensor  # [P, N] bool: whether n is a negative of a

    @classmethod
    def of(cls, distance: Tensor, label: Tensor, margin: float, ordered: bool = False) -> Triplets:
        """All triplets of a batch.

        Args:
            distance: ``[N, N]``.
            label: ``[N]`` int64; equal labels are positives of one another.
            margin: > 0.
            ordered: Each pair twice, either sample being the anchor once; else the earlier one is the anchor.
        """
        same = label[:, None] == label
        positive = same.fill_diagonal_(False) if ordered else same.triu(1)
        anchor, partner = positive.nonzero(as_tuple=True)                            # [P] each
        value = distance[anchor, partner, None] - distance[anchor] + margin
        return cls(value, label[anchor, None] != label)


def all_triplets(found: Triplets) -> tuple[Tensor, Tensor]:
    """Mean hinge over all triplets, and their number: ``AllTripletSelector`` of adambielski/siamese-triplet."""
    return mean_of(found.value.relu(), found.negative), found.negative.sum()


def hardest(found: Triplets) -> tuple[Tensor, Tensor]:
    """For each pair the negative that costs most, if it costs anything: ``HardestNegativeTripletSelector``.

    Returns:
        Mean hinge over those, 0 without any; and their number.
    """
    return _picked(found, found.negative & (found.value > 0), found.value)


def random_hard(found: Triplets, rank: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair a random negative among those that cost something: ``RandomNegativeTripletSelector``.

    Args:
        rank: ``[P, N]`` random numbers; the candidate with the highest is taken.
    """
    return _picked(found, found.negative & (found.value > 0), rank)


def semihard(found: Triplets, rank: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """For each pair a random negative that is farther than the positive, within the margin, and costs something.

    ``SemihardNegativeTripletSelector`` of adambielski/siamese-triplet.

    Args:
        rank: ``[P, N]`` random numbers; the candidate with the highest is taken.
        margin: With which the triplets were made.
    """
    return _picked(found, found.negative & (found.value > 0) & (found.value < margin), rank)


def _picked(found: Triplets, candidate: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the pairs that have a candidate, of the candidate of highest rank; and their number."""
    some = candidate.any(1)
    best = rank.detach().masked_fill(~candidate, -math.inf).argmax(1, keepdim=True)  # [P, 1]
    return mean_of(found.value.gather(1, best)[:, 0], some), some.sum()


def nearest_semihard(found: Triplets, margin: float) -> tuple[Tensor, Tensor]:
    """For each pair the nearest negative that is farther than the positive, else the farthest of all.

    FaceNet's semi-hard negatives (https://arxiv.org/abs/1503.03832, Sec. 3.2) as ``triplet_semihard_loss`` of
    tensorflow/addons@02e1240 has them, over ordered pairs; pairs without any negative count with 0 here.

    Args:
        margin: With which the triplets were made.

    Returns:
        Mean hinge over all pairs, 0 without any; and their number.
    """
    farther = found.negative & (found.value < margin)
    rank = torch.where(farther, found.value, -math.inf)
    outside, inside = rank.detach().argmax(1), found.value.masked_fill(~found.negative, math.inf).detach().argmin(1)
    best = torch.where(farther.any(1), outside, inside)[:, None]                     # [P, 1]
    some = found.negative.any(1)
    return found.value.gather(1, best)[:, 0].relu().where(some, 0.0).sum() / max(len(some), 1), some.sum()
