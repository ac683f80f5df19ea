"""Contrast between places: what one vector of a view says of every place of another view's map."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.offsets import check_inside
from ssl_zoo.losses.precision import full_precision


def tanh_clip(scores: Tensor, clip: float | None) -> Tensor:
    """``clip * tanh(scores / clip)``: a soft limit to ``[-clip, clip]``; None: the scores themselves."""
    return scores if clip is None else clip * torch.tanh(scores / clip)


@full_precision
def local_nce(
    source: Tensor, targets: Tensor, offset: int, clip: float | None = 20.0, penalty: float = 0.05
) -> tuple[Tensor, Tensor]:
    """NCE of AMDIM, https://arxiv.org/abs/1906.00910 (eq. 2-4): the own image's places among all others'.

    As ``NCE_MI_MULTI._model_scores`` of costs.py in Philip-Bachman/amdim-public@8754ae1: the positive is one place, the
    negatives are all places of all *other* images; other places of the same image are neither.

    Args:
        source: ``[B, D]`` one vector for each image of this process.
        targets: ``[N, D, L]`` vectors at the L places of the other view of all images, with gradient;
            ``targets[offset + i]`` belongs to ``source[i]``.
        offset: Index of the first local image among the targets: ``rank * B``.
        clip: Limit of the scores, products over ``sqrt(D)``; 20 in the authors' command line, 10 in their class.
        penalty: Weight of the mean squared score, taken *before* it is clipped.

    Returns:
        ``[B, L]`` log-probabilities of the positives, whose negative mean is the loss in nats; and the penalty.

    Raises:
        ValueError: If the local images do not lie inside the targets, or there is no other image.
    """
    images = len(targets)
    check_inside("local_nce", offset, len(source), images, "targets")
    if images < 2:
        raise ValueError("local_nce: the negatives are the other images of the batch; got 1 image, wanted 2 or more")
    scores = torch.einsum("bd,ndl->bnl", source, targets) / math.sqrt(source.shape[1])       # [B, N, L]
    regulariser = penalty * scores.square().mean()
    scores = tanh_clip(scores, clip)
    row = torch.arange(len(source), device=source.device)
    own = F.one_hot(offset + row, images).bool()[:, :, None]
    positive = scores[row, offset + row]                                                     # [B, L]
    negative = scores.masked_fill(own, -torch.inf).flatten(1).logsumexp(1, keepdim=True)     # [B, 1]
    return positive - torch.logaddexp(positive, negative), regulariser


@full_precision
def clipped_cross_entropy(logits: Tensor, label: Tensor, clip: float = 10.0, penalty: float = 1e-3) -> Tensor:
    """Cross-entropy of softly limited logits: ``loss_xent`` of costs.py in Philip-Bachman/amdim-public@8754ae1.

    Args:
        logits: ``[B, C]``.
        label: ``[B]``; -1 where there is none: such a row counts as 0, and the mean is over all rows.
        clip: Limit of the logits.
        penalty: Weight of the mean squared logit, before it is clipped.
    """
    entropy = F.cross_entropy(tanh_clip(logits, clip), label, ignore_index=-1, reduction="none")
    return entropy.mean() + penalty * logits.square().mean()
