"""Losses of pairs that are told to be similar or not, from their distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

CHOPRA_RATE = 2.77  # of the paper's exponential: eq. 8
EXACT = "donot_use_mm_for_euclid_dist"  # products would lose the distances of rows that lie close together


@full_precision
def distances(a: Tensor, b: Tensor, order: float = 2.0, shift: float = 0.0) -> Tensor:
    """Distances between all rows of two tensors: ``[A, D]`` and ``[B, D]`` to ``[A, B]``.

    Args:
        a, b: Embeddings of any length.
        order: 2: Euclidean; 1: the sum of absolute differences.
        shift: Added to each difference, ``eps`` of ``torch.nn.functional.pairwise_distance``.
    """
    return torch.cdist(a + shift if shift else a, b, p=order, compute_mode=EXACT)


@full_precision
def hadsell(distance: Tensor, similar: Tensor, margin: float, eps: float = 1e-9) -> Tensor:
    """Contrastive loss, eq. 4 of Hadsell, Chopra, LeCun 2006 (https://doi.org/10.1109/CVPR.2006.100), per pair.

    ``d^2 / 2`` of similar pairs, ``max(0, margin - d)^2 / 2`` of the others. As ``ContrastiveLoss`` in losses.py of
    adambielski/siamese-triplet@0c719f9, where 1 means similar (0 in the paper) and the root is of ``d^2 + eps``.

    Args:
        distance: Euclidean, of any shape.
        similar: bool, of the same shape.
        margin: > 0, beyond which pairs that are not similar are left alone.
        eps: Under the root of pairs that are not similar; 0: the paper.
    """
    square = distance.square()
    apart = (square + eps).clamp(min=torch.finfo(square.dtype).tiny).sqrt()
    return torch.where(similar, square, (margin - apart).relu().square()) / 2


@full_precision
def online_hadsell(distance: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Twice :func:`hadsell` without ``eps``: ``OnlineContrastiveLoss`` of adambielski/siamese-triplet@0c719f9.

    Args:
        distance, similar, margin: As of :func:`hadsell`.
    """
    return 2 * hadsell(distance, similar, margin, 0.0)


@full_precision
def chopra(distance: Tensor, similar: Tensor, bound: float) -> Tensor:
    """Contrastive loss, eq. 8 of Chopra, Hadsell, LeCun 2005 (https://doi.org/10.1109/CVPR.2005.202), per pair.

    ``2 / Q * E^2`` of similar pairs, ``2 Q exp(-2.77 E / Q)`` of the others. From the formula: no code is public.

    Args:
        distance: E, the sum of absolute differences of two embeddings, of any shape.
        similar: bool, of the same shape.
        bound: Q > 0, the largest E that there can be.
    """
    return torch.where(similar, 2 / bound * distance.square(), 2 * bound * (-CHOPRA_RATE / bound * distance).exp())


@torch.no_grad()
def first_negatives(rank: Tensor, similar: Tensor, counted: Tensor) -> Tensor:
    """As many pairs that are not similar as there are similar ones: those of lowest ``rank``, bool ``[N, N]``.

    With distances as ranks these are ``HardNegativePairSelector`` of adambielski/siamese-triplet@0c719f9, with random
    numbers the balanced ``AllPositivePairSelector``. Nothing is read on the host.

    Args:
        rank: ``[N, N]`` numbers.
        similar: ``[N, N]`` bool.
        counted: ``[N, N]`` bool: which pairs there are.
    """
    negative = counted & ~similar
    order = rank.masked_fill(~negative, math.inf).flatten().argsort(stable=True).argsort().view_as(rank)
    return negative & (order < (counted & similar).sum())


def mean_of(losses: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen losses, 0 where none is chosen."""
    return losses.where(chosen, 0.0).sum() / chosen.sum().clamp(min=1)
