"""Relations: how similar a sample is to each of many others, as a distribution that two views have to agree on."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def relational_cross_entropy(
    q: Tensor, k: Tensor, queue: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """ReSSL, eq. 3-5 of https://arxiv.org/abs/2107.09282, as ressl.py of mingkai-zheng/ReSSL.

    Args:
        q: ``[B, D]`` unit vectors of the student (strong view).
        k: ``[B, D]`` unit vectors of the teacher (weak view), without gradient.
        queue: ``[K, D]`` unit vectors of earlier weak views.
        student_temperature, teacher_temperature: > 0; the teacher's is the smaller, 0.1 and 0.04.

    Returns:
        Mean cross-entropy over the batch, in nats: at least the entropy of the teacher's relations, ``ln K`` if the
        student's are uniform.
    """
    target = F.softmax(k.detach() @ queue.detach().T / teacher_temperature, dim=1)           # [B, K]
    log_share = F.log_softmax(q @ queue.detach().T / student_temperature, dim=1)             # [B, K]
    return -(target * log_share).sum(1).mean()
