"""Contrast with a memory of classes, clusters and single instances at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_zoo.losses.precision import full_precision

TINY = 1e-6  # in the authors' softmax and in their logarithm


@full_precision
def hybrid_memory(
    z: Tensor, memory: Tensor, labels: Tensor, targets: Tensor, classes: int, temperature: float
) -> Tensor:
    """Unified contrastive loss, eq. 2 of SpCL, https://arxiv.org/abs/2006.02713, one row at a time.

    As ``HybridMemory.forward`` in spcl/models/hm.py of yxgeee/SpCL@01a486e: a class answers with the mean of its
    members' similarities, that is the similarity to their mean, which is not normalised; ``TINY`` is added to the
    denominator and inside the logarithm.

    Args:
        z: ``[B, D]`` unit features.
        memory: ``[M, D]`` unit rows, without gradient.
        labels: ``[M]`` class of each row, below ``classes``; -1: the row takes no part. A class may be empty.
        targets: ``[B]`` classes of ``z``.
        classes: Numbers given to classes.
        temperature: > 0.

    Returns:
        ``[B]`` losses, in nats.
    """
    memory = memory.detach().to(z.dtype)
    place = torch.where(labels < 0, classes, labels)  # one row more, for what takes no part
    sums = memory.new_zeros(classes + 1, memory.shape[1]).index_add_(0, place, memory)[:classes]
    size = memory.new_zeros(classes + 1).index_add_(0, place, memory.new_ones(len(memory)))[:classes]  # [C]
    logits = z @ (sums / size.clamp_min(1)[:, None]).T / temperature  # [B, C]
    logits = logits.masked_fill(size == 0, -torch.inf)
    # Relative to the largest, so that small temperatures do not overflow; the same value.
    largest = logits.detach().amax(1, keepdim=True)
    shares = (logits - largest).exp()
    shares = shares / (shares.sum(1, keepdim=True) + TINY * (-largest).exp())
    return -(shares.gather(1, targets[:, None]).squeeze(1) + TINY).log()
