"""Which pieces of which sequences a prediction is compared with."""

from __future__ import annotations

from torch import Tensor

from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.losses.predictive_coding import negative_rows


def uniform_negatives(draw: Draw, sequences: int, length: int, count: int, window: int, each: int = 1) -> Tensor:
    """Uniform over the sequences of the global batch and over time, but for the time of the context itself.

    As ``sampleClean`` of cpc/criterion/criterion.py, facebookresearch/CPC_audio@b98a1bd: see :func:`negative_rows`. The
    draws belong to samples: they do not depend on the number of processes.

    Args:
        draw: One slot for each of B samples.
        sequences: N, of the global batch.
        length: S, frames of a sequence.
        count: M.
        window: W, times of a context, the first ones.
        each: Sequences of a sample, one after the other.

    Returns:
        ``[B * each, M, W]`` int64, rows of the frames ``[N * S, D]``.
    """
    shape = (each, count, window)
    image = draw.integers("sequence", sequences, *shape).flatten(0, 1)
    shift = 1 + draw.integers("shift", length - 1, *shape).flatten(0, 1)
    return negative_rows(image, shift, length)


def other_sequence(draw: Draw, own: Tensor, sequences: int, each: int = 1) -> Tensor:
    """``[B * each]``: of each sequence another one of the global batch, any with the same probability.

    Args:
        draw: One slot for each of B samples.
        own: ``[B * each]`` where the sequences stand in the global batch.
        sequences: N, at least 2.
        each: Sequences of a sample, one after the other.

    Raises:
        ValueError: If there is no other.
    """
    if sequences < 2:
        raise ValueError("a batch of one sequence has no other one to compare it with; set data.batch_size=2 or more")
    return (own + 1 + draw.integers("other", sequences - 1, each).flatten()) % sequences
