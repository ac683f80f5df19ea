"""A mixture of contrastive experts."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.losses.precision import full_precision

TINY = 1e-18  # inside the logarithm of the posterior, as in the authors' code


class Mixture(NamedTuple):
    loss: Tensor  # mean over the batch, in nats
    posterior: Tensor  # [B, K] responsibility of each expert for each sample
    log_gate: Tensor  # [B, K] logarithm of the prior that the gating function gives


@full_precision
def mixture_of_experts(
    f: Tensor, v: Tensor, g: Tensor, experts: Tensor, gates: Tensor, queue: Tensor, temperature: float
) -> Mixture:
    """Negative evidence lower bound of MiCE (Tsai, Li, Zhu, ICLR 2021), https://openreview.net/forum?id=gV3wdEOGy_V.

    As ``MiCE_ELBO`` in ELBO.py of TsungWeiTsai/MiCE@ddcce45. Expert k is an InfoNCE whose queries ``f_k + mu_k`` carry
    its prototype; the gate chooses the expert. The posterior is not detached: the bound is tight, so that the loss is
    ``-mean log sum_k gate_k expert_k`` and no gradient comes through the posterior, but for ``TINY``.

    Args:
        f: ``[B, K, D]`` unit embeddings of the student, one for each expert.
        v: ``[B, K, D]`` those of the teacher for another view, without gradient.
        g: ``[B, D]`` unit gating embeddings of a third view.
        experts: ``[K, D]`` prototypes mu of the experts, of any length.
        gates: ``[K, D]`` fixed centres omega of the gating function.
        queue: ``[Q, K, D]`` past embeddings of the teacher.
        temperature: > 0, tau of the experts and kappa of the gate; 1 in the authors' code.
    """
    v, queue = v.detach(), queue.detach()
    log_gate = F.log_softmax(g @ gates.T / temperature, dim=1)  # [B, K]
    query = f + F.normalize(experts, dim=1)  # [B, K, D]
    positive = (query * v).sum(2) / temperature  # [B, K]
    negative = [log_sum_exp(query[:, k], queue[:, k], temperature) for k in range(len(experts))]  # K x [B]
    log_expert = positive - torch.logaddexp(positive, torch.stack(negative, 1))  # [B, K]
    posterior = F.softmax(log_gate + log_expert, dim=1)  # [B, K]
    bound = (posterior * (log_gate + log_expert - torch.log(posterior + TINY))).sum(1)  # [B]
    return Mixture(-bound.mean(), posterior, log_gate)


def simplex(count: int, dim: int) -> Tensor:
    """``count`` unit vectors with equal angles, as far apart as they can be: products ``-1 / (count - 1)``.

    Algorithm 1 of Pang et al. 2018, https://arxiv.org/abs/1802.07456, which MiCE's authors stored in
    ``kernel_paras`` (``craft_MMcenters.m``): a lower triangular matrix.

    Args:
        count: K, at least 2.
        dim: Width, at least ``count - 1``.

    Returns:
        ``[count, dim]`` float64.

    Raises:
        ValueError: If so many directions do not fit.
    """
    if not 2 <= count <= dim + 1:
        raise ValueError(
            f"{count} centres with equal angles do not fit in {dim} dimensions, which hold 2 to {dim + 1}; "
            "use fewer, or a wider head"
        )
    wide = max(count, dim)
    centres = torch.zeros(count, wide, dtype=torch.float64)
    centres[0, 0] = 1.0
    for k in range(1, count):
        for j in range(k):
            centres[k, j] = -(1 / (count - 1) + centres[k] @ centres[j]) / centres[j, j]
        centres[k, k] = (1 - centres[k].square().sum()).clamp_min(0).sqrt()
    return centres[:, :dim]  # the last vector has nothing in the column that is cut
