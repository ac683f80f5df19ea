"""InfoNCE against other keys than one queue: the global batch, negatives of each query's own, several positives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import DENSE, log_sum_exp
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


@full_precision
def in_batch_info_nce(q: Tensor, keys: Tensor, offset: int, temperature: float, chunk: int | None = None) -> Tensor:
    """InfoNCE whose negatives are the keys of the other samples, Algorithm 1 of https://arxiv.org/abs/2104.02057.

    Without the factor ``2 * temperature`` of MoCo v3, which belongs to the method.

    Args:
        q: ``[B, D]`` unit queries of this process.
        keys: ``[N, D]`` unit keys of all processes, without gradient; ``keys[offset + i]`` belongs to ``q[i]``.
        offset: Index of the first local row among the keys: ``rank * B``.
        temperature: > 0; 1 for ResNets, 0.2 for transformers.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`; None: chosen by the size.

    Returns:
        Mean over the local queries, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the keys.
    """
    check_inside("in_batch_info_nce", offset, len(q), len(keys), "keys")
    keys = keys.detach()
    if chunk is None and len(q) * len(keys) <= DENSE:  # the authors' order of operations, to the last bit
        target = torch.arange(offset, offset + len(q), device=q.device)
        return F.cross_entropy(q @ keys.T / temperature, target)
    positive = (q * keys[offset : offset + len(q)]).sum(1) / temperature  # [B]
    return (log_sum_exp(q, keys, temperature, chunk=chunk) - positive).mean()


@full_precision
def info_nce_with(
    q: Tensor, k: Tensor, queue: Tensor, extra: Tensor, temperature: float, chunk: int | None = None
) -> Tensor:
    """:func:`ssl_zoo.losses.contrastive.info_nce` with further negatives that belong to one query each.

    Args:
        q, k: ``[B, D]`` unit queries and their unit positive keys; no gradient reaches ``k``.
        queue: ``[K, D]`` unit negatives of all queries, without gradient.
        extra: ``[B, S, D]`` unit negatives of each query; they keep the gradient that they have.
        temperature: > 0.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`; None: chosen by the size.

    Returns:
        Mean over the batch, in nats.
    """
    positive = (q * k.detach()).sum(1) / temperature  # [B]
    shared = log_sum_exp(q, queue.detach(), temperature, chunk=chunk)  # [B]
    own = (extra @ q[:, :, None])[:, :, 0].div(temperature).logsumexp(1)  # [B]
    return (torch.logaddexp(positive, torch.logaddexp(shared, own)) - positive).mean()


@full_precision
def leave_one_out(q: Tensor, keys: Tensor, queues: Sequence[Tensor], temperature: float) -> Tensor:
    """LooC, eq. 2 of https://arxiv.org/abs/2008.05659: InfoNCE in one space per augmentation and one for all of them.

    Space 0 is invariant to everything: its positive is key view 0. Space ``i`` keeps what augmentation ``i`` changes:
    its positive is key view ``i``, which shares that augmentation with the query, and the other key views of the same
    sample are negatives besides its queue. (No code of the authors is public; the formula is from memory of the paper.)

    Args:
        q: ``[S, B, D]`` unit queries in every space.
        keys: ``[S, S, B, D]`` unit keys, by space and key view; no gradient reaches them.
        queues: S x ``[K, D]`` unit negatives of the spaces: past keys of view ``i`` in space ``i``.
        temperature: > 0.

    Returns:
        ``[S]`` losses of the spaces, in nats; the paper's is their mean.
    """
    losses = [info_nce(q[0], keys[0, 0], queues[0], temperature)]
    for space in range(1, len(q)):
        others = torch.cat([keys[space, :space], keys[space, space + 1 :]]).detach()  # [S - 1, B, D]
        positive = keys[space, space]
        losses.append(info_nce_with(q[space], positive, queues[space], others.transpose(0, 1), temperature))
    return torch.stack(losses)


@full_precision
def k_positive(
    q: Tensor, k: Tensor, queue: Tensor, positives: Tensor, temperature: float, zeroed: Tensor | None = None
) -> Tensor:
    """KCL, eq. 4 of https://openreview.net/forum?id=OqtLIabPTit: cross-entropy with several equal positives.

    As ``SoftCrossEntropyLoss`` on the logits of ``moco/kcl_builder.py`` of bingykang/BalFeat@ba60412.

    Args:
        q, k: ``[B, D]`` unit queries and their unit positive keys; no gradient reaches ``k``.
        queue: ``[K, D]`` unit keys, without gradient.
        positives: ``[B, K]`` bool, keys of the queue that are positives of a query besides its own key.
        temperature: > 0.
        zeroed: ``[B, K]`` bool, keys whose similarity counts as 0 (the authors' loss v2); None: none.

    Returns:
        Mean over the batch, in nats.
    """
    others = q @ queue.detach().T  # [B, K]
    if zeroed is not None:
        others = others.masked_fill(zeroed, 0.0)
    logits = torch.cat([(q * k.detach()).sum(1, keepdim=True), others], 1) / temperature  # [B, 1 + K]
    target = torch.cat([positives.new_ones(len(q), 1), positives], 1).to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    return (logits.logsumexp(1) - (target * logits).sum(1)).mean()
