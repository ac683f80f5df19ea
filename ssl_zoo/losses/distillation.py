"""Distillation: a student that follows a teacher's outputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation, eq. 2 of https://arxiv.org/abs/1503.02531: KL(teacher || student) of softened classes.

    As ``DistillKL`` of distiller_zoo/KD.py in HobbitLong/RepDistiller@b84f547; times ``temperature^2``, which keeps the
    size of the gradient.

    Args:
        student, teacher: ``[B, C]`` logits; no gradient reaches the teacher's.
        temperature: > 0; 4.

    Returns:
        Mean over the batch, in nats.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


@full_precision
def softened_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Distillation of SimCLR v2, eq. 2 of https://arxiv.org/abs/2006.10029: cross-entropy of softened classes.

    As ``add_kd_loss`` of colabs/distillation_self_training.ipynb in google-research/simclr@383d414; times
    ``temperature^2``, which the paper leaves out. Unlike :func:`softened_kl` it keeps the teacher's entropy, so that
    its lowest value is not 0; the gradients are the same.

    Args:
        student, teacher: ``[B, C]`` logits; no gradient reaches the teacher's.
        temperature: > 0; 0.1 to 1.

    Returns:
        Mean over the batch, in nats.
    """
    target = F.softmax(teacher.detach() / temperature, dim=1)
    return F.cross_entropy(student / temperature, target) * temperature**2
