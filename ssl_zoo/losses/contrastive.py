"""Contrastive losses: local queries against gathered or remembered keys."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_zoo.losses.precision import full_precision


def _others_cross_entropy(anchors: Tensor, keys: Tensor, own: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Sum over anchors of -log softmax at ``positive``, over all keys but the anchor itself (index ``own``)."""
    logits = (anchors @ keys.T / temperature).scatter(1, own[:, None], -torch.inf)  # [b, 2N]
    return F.cross_entropy(logits, positive, reduction="sum")


@full_precision
def nt_xent(
    a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, offset: int, temperature: float, chunk: int = 1024
) -> Tensor:
    """NT-Xent, eq. 1 of SimCLR, https://arxiv.org/abs/2002.05709: local rows of two views against all rows of both.

    Equals *half* of ``add_contrastive_loss`` in tf2/objective.py of google-research/simclr@383d414, which adds the two
    views instead of averaging over all ``2B`` anchors.

    Args:
        a, b: ``[B, D]`` unit rows of this process; ``a[i]`` and ``b[i]`` are views of one sample.
        keys_a, keys_b: ``[N, D]`` rows of all processes, with gradient; ``keys_a[offset + i]`` is ``a[i]``.
        offset: Index of the first local row among the keys: ``rank * B``.
        temperature: > 0; 0.1 for ImageNet, 0.5 for CIFAR-10.
        chunk: Anchors handled at once. More anchors go chunk by chunk, each recomputed in the backward pass, so that
            memory grows with ``chunk * 2N`` instead of ``2B * 2N``.

    Returns:
        Mean over the ``2B`` anchors, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the keys.
    """
    n = len(keys_a)
    if not 0 <= offset <= n - len(a):
        raise ValueError(f"nt_xent: rows {offset} to {offset + len(a)} do not lie inside {n} keys; offset is rank * B")
    keys = torch.cat([keys_a, keys_b])  # [2N, D]
    row = torch.arange(offset, offset + len(a), device=a.device)
    parts = (torch.cat([a, b]), torch.cat([row, row + n]), torch.cat([row + n, row]))  # anchors, own, positive
    if len(parts[0]) <= chunk:
        return _others_cross_entropy(parts[0], keys, parts[1], parts[2], temperature) / len(parts[0])
    recomputed = functools.partial(checkpoint, _others_cross_entropy, use_reentrant=False, preserve_rng_state=False)
    pieces = zip(*(part.split(chunk) for part in parts), strict=True)
    sums = [recomputed(anchors, keys, own, positive, temperature) for anchors, own, positive in pieces]
    return torch.stack(sums).sum() / len(parts[0])


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE against a queue, eq. 1 and Algorithm 1 of MoCo, https://arxiv.org/abs/1911.05722.

    Args:
        q, k: ``[B, D]`` unit queries and their unit positive keys; no gradient reaches ``k`` (Algorithm 1).
        queue: ``[K, D]`` unit negative keys.
        temperature: > 0; 0.07 in v1, 0.2 in v2.

    Returns:
        Mean over the batch, in nats.
    """
    positive = (q * k.detach()).sum(1, keepdim=True)  # [B, 1]
    negative = q @ queue.detach().T  # [B, K]
    logits = torch.cat([positive, negative], dim=1) / temperature  # [B, 1 + K]
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
