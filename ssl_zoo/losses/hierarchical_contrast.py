"""Contrast of two views of a series at every step and at every scale: TS2Vec."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


@full_precision
def instance_contrast(a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, offset: int) -> Tensor:
    """Each step of each series against the same step of all series, eq. 2 of https://arxiv.org/abs/2106.10466.

    ``instance_contrastive_loss`` of ``models/losses.py`` in zhihanyue/ts2vec@b0088e14: dot products, neither normalised
    nor divided by a temperature. 0 where there is one series.

    Args:
        a, b: ``[B, T, F]`` this process's series in two views; ``a[i, t]`` and ``b[i, t]`` are of the same moment.
        keys_a, keys_b: ``[N, T, F]`` of all processes, with gradient; ``keys_a[offset + i]`` is ``a[i]``.
        offset: Index of the first local series among the keys: ``rank * B``.

    Returns:
        Mean over steps and the ``2B`` anchors, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the keys.
    """
    rows, total = len(a), len(keys_a)
    check_inside("instance_contrast", offset, rows, total, "keys")
    anchors, keys = torch.cat([a, b]).transpose(0, 1), torch.cat([keys_a, keys_b]).transpose(0, 1)
    logits = anchors @ keys.transpose(1, 2)  # [T, 2B, 2N]
    own = torch.arange(offset, offset + rows, device=a.device)
    return _cross_entropy(logits, torch.cat([own, own + total]), torch.cat([own + total, own]))


@full_precision
def temporal_contrast(a: Tensor, b: Tensor) -> Tensor:
    """Each step of a series against all its other steps, eq. 1 of https://arxiv.org/abs/2106.10466.

    ``temporal_contrastive_loss`` of the same file. 0 where there is one step.

    Args:
        a, b: ``[B, T, F]``, as of :func:`instance_contrast`.

    Returns:
        Mean over series and their ``2T`` anchors, in nats.
    """
    both = torch.cat([a, b], 1)  # [B, 2T, F]
    own = torch.arange(both.shape[1], device=a.device)
    return _cross_entropy(both @ both.transpose(1, 2), own, own.roll(a.shape[1]))


def _cross_entropy(logits: Tensor, own: Tensor, positive: Tensor) -> Tensor:
    """Mean over the rows of ``[G, R, K]``: row r is column ``own[r]``, which is left out, and wants ``positive[r]``."""
    rows = torch.arange(len(own), device=logits.device)
    wanted = logits[:, rows, positive]  # [G, R]
    left_out = own[:, None] == torch.arange(logits.shape[2], device=logits.device)   # [R, K]
    return (logits.masked_fill(left_out, -torch.inf).logsumexp(2) - wanted).mean()


def hierarchical_contrast(
    a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, offset: int, alpha: float = 0.5, temporal_unit: int = 0
) -> Tensor:
    """Both contrasts at every scale, algorithm 1 of https://arxiv.org/abs/2106.10466.

    ``hierarchical_contrastive_loss`` of the same file: from one scale to the next the larger of two neighbouring steps
    is kept, down to one step, where series alone are compared; the mean over all scales.

    Args:
        a, b, keys_a, keys_b, offset: As of :func:`instance_contrast`.
        alpha: Weight of that; the rest is that of :func:`temporal_contrast`.
        temporal_unit: First scale, counted from 0, at which steps are compared.

    Returns:
        Scalar, in nats.
    """
    views, loss, scale = (a, b, keys_a, keys_b), a.new_zeros(()), 0
    while True:
        length = views[0].shape[1]
        if alpha:
            loss = loss + alpha * instance_contrast(*views, offset)
        if alpha < 1 and length > 1 and scale >= temporal_unit:
            loss = loss + (1 - alpha) * temporal_contrast(*views[:2])
        scale += 1
        if length == 1:
            return loss / scale
        halved = [F.max_pool1d(view.transpose(1, 2), 2).transpose(1, 2) for view in views]
        views = halved[0], halved[1], halved[2], halved[3]
