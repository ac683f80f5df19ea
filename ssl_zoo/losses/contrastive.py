"""Contrastive losses: local queries against gathered or remembered keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


@full_precision
def nt_xent(
    a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, offset: int, temperature: float, chunk: int | None = None
) -> Tensor:
    """NT-Xent, eq. 1 of SimCLR, https://arxiv.org/abs/2002.05709: local rows of two views against all rows of both.

    Equals *half* of ``add_contrastive_loss`` in tf2/objective.py of google-research/simclr@383d414, which adds the two
    views instead of averaging over all ``2B`` anchors.

    Args:
        a, b: ``[B, D]`` unit rows of this process; ``a[i]`` and ``b[i]`` are views of one sample.
        keys_a, keys_b: ``[N, D]`` rows of all processes, with gradient; ``keys_a[offset + i]`` is ``a[i]``.
        offset: Index of the first local row among the keys: ``rank * B``.
        temperature: > 0; 0.1 for ImageNet, 0.5 for CIFAR-10.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`: tiles of large batches, so that memory grows with
            ``chunk^2`` instead of ``2B * 2N``. None: chosen by the size.

    Returns:
        Mean over the ``2B`` anchors, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the keys.
    """
    both = _Both(a, b, keys_a, keys_b, offset, "nt_xent")
    others = log_sum_exp(both.anchors, both.keys, temperature, both.own, chunk)  # [2B]
    return (others - both.similarity / temperature).mean()


@full_precision
def decoupled(
    a: Tensor,
    b: Tensor,
    keys_a: Tensor,
    keys_b: Tensor,
    offset: int,
    temperature: float,
    sigma: float | None = None,
    leak: float | None = None,
    apart: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """DCL and DCLW, eq. 6 and 7 of https://arxiv.org/abs/2110.06848: NT-Xent without the positive in the denominator.

    Args:
        a, b, keys_a, keys_b, offset, temperature, chunk: As in :func:`nt_xent`.
        sigma: Temperature of the weights of the positives, ``2 - N softmax(similarity / sigma)`` over the global batch
            with gradient (DCLW, 0.5); None: all 1 (DCL).
        leak: Leave the anchor and its positive in the denominator with this log-weight, as the code named below does
            with log(1e-45) = -103.6, which shows at temperatures of a hundredth; None: leave them out.
        apart: The negatives of either view have a log-sum-exp of their own, and the two are added, as ``DCLLoss`` of
            lightly@e8d317f does (``lightly/loss/dcl_loss.py``), which takes the positive out for good.

    Returns:
        Mean over the ``2B`` anchors, in nats; may be negative. Half of ``DCL(z1, z2) + DCL(z2, z1)``, what
        raminnakhli/Decoupled-Contrastive-Learning@0b9b76d minimises.
    """
    both = _Both(a, b, keys_a, keys_b, offset, "decoupled")
    if apart:
        of_views = [log_sum_exp(both.anchors, keys, temperature, both.sample, chunk) for keys in (keys_a, keys_b)]
        others = of_views[0] + of_views[1]
    else:
        others = log_sum_exp(both.anchors, both.keys, temperature, torch.cat([both.own, both.partner], 1), chunk)
    if leak is not None:
        own = _pairs(both.anchors, both.anchors) / temperature
        others = torch.logaddexp(others, leak + torch.logaddexp(own, both.similarity / temperature))
    if sigma is None:
        return (others - both.similarity / temperature).mean()
    share = torch.softmax(_pairs(keys_a, keys_b) / sigma, dim=0)[offset : offset + len(a)]  # [B]
    weight = (2 - len(keys_a) * share).repeat(2)
    return (others - weight * both.similarity / temperature).mean()


@full_precision
def hard_negatives(
    a: Tensor,
    b: Tensor,
    keys_a: Tensor,
    keys_b: Tensor,
    offset: int,
    temperature: float,
    beta: float = 1.0,
    positive_share: float = 0.1,
    chunk: int | None = None,
) -> Tensor:
    """HCL, eq. 4 of https://arxiv.org/abs/2010.04592: negatives weighted by their hardness, less what is falsely one.

    As ``criterion`` of image/main.py of joshr17/HCL@7b4647f; gradient flows through the weights.

    Args:
        a, b, keys_a, keys_b, offset, temperature, chunk: As in :func:`nt_xent`.
        beta: Concentration of the weights ``exp(beta * similarity / temperature)``; 0: the debiased loss of
            https://arxiv.org/abs/2007.00224.
        positive_share: Chance that a negative has the anchor's class (tau+), in [0, 1).

    Returns:
        Mean over the ``2B`` anchors, in nats.
    """
    both = _Both(a, b, keys_a, keys_b, offset, "hard_negatives")
    skip = torch.cat([both.own, both.partner], 1)
    count = 2 * len(keys_a) - 2
    # All exponentials are relative to that of the largest similarity, 1, so that small temperatures do not overflow.
    logit = (both.similarity - 1) / temperature  # [2B], of the positive
    hardest = log_sum_exp(both.anchors, both.keys, temperature / (1 + beta), skip, chunk)
    weights = log_sum_exp(both.anchors, both.keys, temperature / beta, skip, chunk) if beta else math.log(count)
    reweighted = count * torch.exp(hardest - weights - 1 / temperature)
    negative = (reweighted - positive_share * count * logit.exp()) / (1 - positive_share)
    negative = negative.clamp(min=count * math.exp(-2 / temperature))
    return (torch.log(logit.exp() + negative) - logit).mean()


class _Both:
    """Rows of two views against the rows of both on all processes: who is who."""

    def __init__(self, a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, offset: int, name: str) -> None:
        n = len(keys_a)
        check_inside(name, offset, len(a), n, "keys")
        self.anchors = torch.cat([a, b])  # [2B, D]
        # One process: the anchors are the keys, and the same tensor says so to log_sum_exp.
        self.keys = self.anchors if keys_a is a and keys_b is b else torch.cat([keys_a, keys_b])  # [2N, D]
        row = torch.arange(offset, offset + len(a), device=a.device)
        self.sample = row.repeat(2)[:, None]  # [2B, 1] where it is among the keys of either view
        self.own = torch.cat([row, row + n])[:, None]  # [2B, 1] where the anchors are among the keys
        self.partner = torch.cat([row + n, row])[:, None]  # [2B, 1] and their positives
        self.similarity = torch.cat([_pairs(a, keys_b[offset:]), _pairs(b, keys_a[offset:])])  # [2B]


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float, chunk: int | None = None) -> Tensor:
    """InfoNCE against a queue, eq. 1 and Algorithm 1 of MoCo, https://arxiv.org/abs/1911.05722.

    Args:
        q, k: ``[B, D]`` unit queries and their unit positive keys; no gradient reaches ``k`` (Algorithm 1).
        queue: ``[K, D]`` unit negative keys.
        temperature: > 0; 0.07 in v1, 0.2 in v2.
        chunk: As in :func:`ssl_zoo.losses.chunked.log_sum_exp`; None: chosen by the size.

    Returns:
        Mean over the batch, in nats.
    """
    positive = _pairs(q, k.detach()) / temperature  # [B]
    negatives = log_sum_exp(q, queue.detach(), temperature, chunk=chunk)  # [B]
    return (torch.logaddexp(positive, negatives) - positive).mean()


def _pairs(a: Tensor, keys: Tensor) -> Tensor:
    """``[B]`` products of the rows of ``a`` with the first rows of ``keys``."""
    return (a * keys[: len(a)]).sum(1)
