"""Self-training: classes that a teacher has guessed, beside classes that somebody has named."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def cross_entropy_rows(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each sample.

    Args:
        logits: ``[B, C]``.
        target: ``[B]`` classes, -1 = none; or ``[B, C]`` probabilities, rows of zeros = none.
        smoothing: Label smoothing, in [0, 1).

    Returns:
        ``[B]`` in nats, 0 without a target.
    """
    if target.dtype.is_floating_point:
        return F.cross_entropy(logits, target.to(logits.dtype), label_smoothing=smoothing, reduction="none")
    return F.cross_entropy(logits, target, ignore_index=-1, label_smoothing=smoothing, reduction="none")


@full_precision
def sharpened(probabilities: Tensor, temperature: float) -> Tensor:
    """Stored soft labels at another temperature: ``p^(1 / temperature)``, made to sum to 1 again.

    What ``main.py`` of google-research/noisystudent@aac52bf does; the same as the softmax of the teacher's
    logits over the temperature.

    Args:
        probabilities: ``[B, C]``; rows of zeros stay zeros.
        temperature: > 0; 1 leaves them.
    """
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True).clamp_min(1e-30)
