"""Losses of SCARF and VIME: rows beside corrupted ones."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp

EPSILON = 1e-7  # of Keras: probabilities of 0 and 1 are kept so far from them


def clean_against_corrupted(
    z: Tensor, keys: Tensor, offset: int, temperature: float, chunk: int | None = None
) -> Tensor:
    """InfoNCE of SCARF, https://arxiv.org/abs/2106.15147, Sec. 3: the clean rows are the anchors, one direction.

    The mean over keys stands inside the logarithm, so that the value is the cross-entropy less ``log N``: 0 where all
    keys are alike.

    Args:
        z: ``[B, D]`` unit rows of this process, of clean samples.
        keys: ``[N, D]`` unit rows of all processes, of corrupted samples; ``keys[offset + i]`` is that of ``z[i]``.
        offset: Index of the first local row among the keys: ``rank * B``.
        temperature: > 0; 1 in the paper.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`.

    Returns:
        Mean over the local rows, in nats.
    """
    positive = (z * keys[offset : offset + len(z)]).sum(1) / temperature
    return (log_sum_exp(z, keys, temperature, chunk=chunk) - positive).mean() - math.log(len(keys))


def mask_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of VIME's mask estimator (``vime_self.py``), as Keras bounds it.

    Args:
        logits: ``[B, M]``; the code's sigmoid is taken here.
        mask: ``[B, M]`` of 0 and 1: which columns were really changed.

    Returns:
        Mean over rows and columns, in nats.
    """
    p = logits.sigmoid().clamp(EPSILON, 1 - EPSILON)
    return -(mask * p.log() + (1 - mask) * (1 - p).log()).mean()


def rebuilt(logits: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error of VIME's feature estimator (``vime_self.py``): of all inputs, changed or not.

    Args:
        logits: ``[B, F]``; the code's sigmoid is taken here, for inputs in [0, 1].
        clean: ``[B, F]``.
    """
    return F.mse_loss(logits.sigmoid(), clean)


def consistency(logits: Tensor) -> Tensor:
    """Unsupervised loss of ``vime_semi.py``: the variance of predictions over corrupted copies of a row.

    The code takes the biased variance of logits; the paper's text compares with the prediction for the clean row.

    Args:
        logits: ``[K, B, C]``.

    Returns:
        Mean over rows and classes.
    """
    return logits.var(0, unbiased=False).mean()
