"""Contrastive predictive coding: predict later parts of a signal in latent space, and pick them out among others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def rows_below(predictions: Tensor, targets: Tensor, rows: int, offset: int, scale: float = 0.1) -> Tensor:
    """InfoNCE of CPC on a grid of patches, https://arxiv.org/abs/1905.09272 (eq. 1): what lies some rows below.

    As ``CPCTask.compute_loss_h`` of Lightning-Universe/lightning-bolts@34958a8: the negatives are all other vectors of
    the batch, those of the same image and column too.

    Args:
        predictions: ``[B, D, h, w]`` from the context at each place, local images.
        targets: ``[N, D, h, w]`` of all images, with gradient; ``targets[offset + i]`` belongs to image i.
        rows: Distance of the target, 1 to ``h - 1``.
        offset: Index of the first local image among the targets: ``rank * B``.
        scale: Factor of the predictions.

    Returns:
        Mean over the ``B * (h - rows) * w`` predictions, in nats.

    Raises:
        ValueError: If no row lies so far below another.
    """
    height, width = targets.shape[2:]
    if not 0 < rows < height:
        raise ValueError(f"rows_below: rows={rows} in a grid of {height} rows; wanted 1 to {height - 1}")
    p = scale * predictions[:, :, :-rows].permute(0, 2, 3, 1)                        # [B, h - rows, w, D]
    t = targets.permute(0, 2, 3, 1).flatten(0, 2)                                    # [N * h * w, D]
    place = torch.arange(len(t), device=t.device).view(-1, height, width)            # of each target
    label = place[offset : offset + len(predictions), rows:].flatten()
    return F.cross_entropy(p.flatten(0, 2) @ t.T, label)


def negative_rows(image: Tensor, shift: Tensor, length: int) -> Tensor:
    """Which frames are negatives: ``sampleClean`` of cpc/criterion/criterion.py, facebookresearch/CPC_audio@b98a1bd.

    Args:
        image: ``[B, M, W]`` int64, drawn sequences of the (global) batch.
        shift: ``[B, M, W]`` int64 in ``[1, S)``, drawn distances from the time t of the context; a frame at time t is
            never drawn, the positive at t + k may be.
        length: Frames of a sequence, S.

    Returns:
        ``[B, M, W]`` int64, rows of the encoded frames ``[N * S, D]``.
    """
    time = torch.arange(shift.shape[2], device=shift.device)
    return image * length + (shift + time) % length


@full_precision
def future_info_nce(predictions: Sequence[Tensor], encoded: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE of CPC on sequences, https://arxiv.org/abs/1807.03748 (eq. 4), with negatives that all steps share.

    As ``CPCUnsupersivedCriterion`` of facebookresearch/CPC_audio@b98a1bd: a score is the *mean* over the dimensions of
    the product, so a temperature of D is built in. Their mode ``reverse`` is this loss of sequences flipped in time.

    Args:
        predictions: K x ``[B, W, D]``, of the frames 1, ..., K steps after each of the first ``W = S - K``.
        encoded: ``[B, S, D]`` frames.
        negatives: ``[B, M, W, D]``, see :func:`negative_rows`.

    Returns:
        ``[K]`` losses in nats, means over ``B * W``; their sum is trained on. ``[K]`` shares of predictions whose
        positive scores highest.
    """
    window, width = predictions[0].shape[1:]
    p = torch.stack(list(predictions), 2)                                            # [B, W, K, D]
    later = [encoded[:, step : step + window] for step in range(1, len(predictions) + 1)]
    products = p * torch.stack(later, 2)                                             # [B, W, K, D]
    positive = products.mean(3)                                                      # [B, W, K]
    others = p @ negatives.permute(0, 2, 3, 1) / width                               # [B, W, K, M]
    losses = (torch.cat([positive[..., None], others], 3).logsumexp(3) - positive).mean((0, 1))
    # A positive that was drawn as a negative too is a hit; the two sums may round differently, by so much at most.
    rounding = torch.finfo(p.dtype).eps * products.detach().abs().sum(3)
    hits = (positive + rounding >= others.amax(3)).to(p.dtype).mean((0, 1))
    return losses, hits.detach()


@full_precision
def batch_time_info_nce(predictions: Tensor, targets: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """InfoNCE of CPC for sentences: one softmax over all later pieces of all sequences of the batch.

    As ``info_nce`` of model/models.py in vgaraujov/CPC-NLP-PyTorch@a182f28, whose details a CPC author confirmed (its
    README); a score is the product, with no temperature.

    Args:
        predictions: ``[K, B, D]`` of the K last pieces of each sequence, local ones.
        targets: ``[K, N, D]`` of all sequences, with gradient; ``targets[k, offset + i]`` belongs to sequence i.
        offset: Index of the first local sequence among the targets: ``rank * B``.

    Returns:
        ``[K]`` losses in nats, means over B; their sum is trained on. ``[K]`` shares of predictions whose own piece
        scores highest.
    """
    steps, rows = predictions.shape[:2]
    scores = predictions @ targets.flatten(0, 1).T                                   # [K, B, K * N]
    own = torch.arange(rows, device=scores.device) + offset
    label = torch.arange(steps, device=scores.device)[:, None] * targets.shape[1] + own          # [K, B]
    losses = F.cross_entropy(scores.flatten(0, 1), label.flatten(), reduction="none").view(steps, rows)
    hits = (scores.argmax(2) == label).to(losses.dtype)
    return losses.mean(1), hits.mean(1)


@full_precision
def match_probability(predictions: Tensor, codes: Tensor) -> Tensor:
    """Whether codes are those that were predicted: ``CPCLayer`` of davidtellez/contrastive-predictive-coding@67657aa.

    Args:
        predictions, codes: ``[B, T, D]`` of T later terms.

    Returns:
        ``[B, 1]``, the logistic function of the mean product over terms and dimensions.
    """
    return torch.sigmoid((predictions * codes).mean((1, 2)))[:, None]


@full_precision
def binary_match(probability: Tensor, label: Tensor, eps: float = 1e-7) -> Tensor:
    """Binary cross-entropy as Keras takes it, of :func:`match_probability`; not InfoNCE.

    Args:
        probability, label: ``[B, 1]``; label 1 for the true codes, 0 for those of other sequences.
        eps: Probabilities are kept this far from 0 and 1.
    """
    p = probability.clamp(eps, 1 - eps)
    return -(label * p.log() + (1 - label) * torch.log1p(-p)).mean()
