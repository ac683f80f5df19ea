"""Vectors that ask, and what answers them: their own samples, the others of the batch, or those of earlier batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.distributed import gather, rank
from ssl_zoo.modules.similarity import Similarity


class Way(NamedTuple):
    """Vectors ask, and others of the same samples are the right answers."""

    query: Tensor  # [B, M, D], M vectors of each local sample
    key: Tensor  # [B, L, D]
    match: Tensor  # [M, P] which of the L are right for each of the M
    weight: float = 1.0


class Seen(NamedTuple):
    """What represents a batch: ways, or clusters."""

    features: Tensor  # [B, F]
    directions: Sequence[list[Way]] = ()  # view 0 asks view 1; view 1 asks view 0
    memory: Tensor | None = None  # [K, D] the wrong answers; None: they are the other samples'
    scores: Sequence[Tensor] = ()  # V x [B, K] with prototypes
    assignments: Sequence[Tensor] = ()  # [B, K] of the first views


class Scores(NamedTuple):
    """Of A = B * M queries, as :mod:`ssl_zoo.losses.scores` takes them."""

    right: Tensor  # [A, P]
    own: Tensor  # [A, L]
    others: Tensor  # [A, K], -inf for what does not count
    penalty: Tensor  # of the similarity


def one_to_one(query: Tensor, key: Tensor) -> Way:
    """Of ``[B, D]``, one vector of each sample."""
    return Way(query[:, None], key[:, None], torch.zeros(1, 1, dtype=torch.int64, device=key.device))


def scores_of(
    way: Way, similarity: Similarity, memory: Tensor | None = None, own_view: bool = False, stop_gradient: bool = False
) -> Scores:
    """How every query scores with every answer.

    Args:
        way: Of the local samples.
        similarity: Of two vectors.
        memory: ``[K, D]`` answers of earlier batches, which are the wrong ones; None: those of all other samples.
        own_view: The queries of the other samples are wrong answers too; without ``memory``.
        stop_gradient: Answers do not learn.
    """
    samples, queries, answers = *way.query.shape[:2], way.key.shape[1]
    if memory is None:
        known = gather(torch.cat([way.key, way.query], 1) if own_view else way.key)          # [N, L', D]
        known = known.detach() if stop_gradient else known
        found, penalty = similarity(way.query.flatten(0, 1), known.flatten(0, 1))
        scores = found.view(samples, queries, *known.shape[:2])                      # [B, M, N, L']
        row = torch.arange(samples, device=scores.device)
        mine = rank() * samples + row                                                # [B] of all N samples
        own = scores[row, :, mine, :answers]                                         # [B, M, L]
        hidden = F.one_hot(mine, len(known)).bool()[:, None, :, None]                # [B, 1, N, 1]
        others = scores.masked_fill(hidden, -torch.inf).flatten(2)                   # [B, M, N * L']
    else:
        own, _ = similarity(way.query, way.key)                                      # [B, M, L]
        found, penalty = similarity(way.query.flatten(0, 1), memory, remembered=True)         # [B * M, K]
        others = found.view(samples, queries, -1)
    right = own.gather(2, way.match.expand(samples, -1, -1))                         # [B, M, P]
    return Scores(right.flatten(0, 1), own.flatten(0, 1), others.flatten(0, 1), penalty)
