"""Prediction of the next steps of one view of a series from the past of another: TS-TCC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


@full_precision
def temporal_prediction(steps: Tensor, predictions: Tensor, offset: int) -> Tensor:
    """Which of all predictions is that of a series: eq. 2 of https://arxiv.org/abs/2106.14112.

    ``TC.forward`` of ``models/TC.py`` in emadeldeen24/TS-TCC@15bdfd6e: dot products without a temperature, and a
    softmax over the predictions of the batch.

    Args:
        steps: ``[B, K, D]`` this process's next K steps of one view.
        predictions: ``[N, K, D]`` of all processes, with gradient; ``predictions[offset + i]`` is meant for
            ``steps[i]``.
        offset: Index of the first local series among the predictions: ``rank * B``.

    Returns:
        Mean over series and steps, in nats.

    Raises:
        ValueError: If the local rows do not lie inside the predictions.
    """
    check_inside("temporal_prediction", offset, len(steps), len(predictions), "predictions")
    logits = torch.einsum("bkd,nkd->kbn", steps, predictions)  # [K, B, N]
    wanted = torch.arange(offset, offset + len(steps), device=steps.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
