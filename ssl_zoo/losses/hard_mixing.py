"""Hard negatives made in feature space: MoCHi, https://arxiv.org/abs/2010.01028 (Sec. 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def hardest(q: Tensor, keys: Tensor, count: int) -> Tensor:
    """The keys nearest to each query, hardest first.

    Args:
        q: ``[B, D]`` unit queries.
        keys: ``[K, D]`` unit keys.
        count: N of them, at most K.

    Returns:
        ``[B, N]`` positions among the keys.
    """
    return (q.detach() @ keys.detach().T).topk(count, dim=1).indices


@full_precision
def mixed(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Points between ``a`` and ``b`` on the unit sphere: ``weight * a + (1 - weight) * b``, normalised.

    Args:
        a, b: ``[B, S, D]``, or broadcast to it.
        weight: ``[B, S]`` in [0, 1], of ``a``.
    """
    weight = weight[:, :, None]
    return F.normalize(weight * a + (1 - weight) * b, dim=2)
