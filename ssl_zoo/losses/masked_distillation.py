"""Distillation of class tokens across crops and of hidden patches within a crop: DINOv2's two sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@full_precision
def summed_distillation(student: Sequence[Tensor], targets: Sequence[Tensor], student_temperature: float) -> Tensor:
    """Cross-entropies of every student crop with every target, summed: ``DINOLoss.forward`` of DINOv2.

    dinov2/loss/dino_clstoken_loss.py of facebookresearch/dinov2@b8931f7 leaves the division by the number of pairs, and
    which pairs there are, to its caller.

    Args:
        student: V x ``[B, K]`` scores.
        targets: Q x ``[B, K]`` probabilities, without gradient.
        student_temperature: > 0; 0.1 in the paper.

    Returns:
        Sum over the V Q pairs of the mean over the batch, in nats.
    """
    target = torch.stack([target.detach() for target in targets]).sum(0)  # their cross-entropies add up to this one's
    return torch.stack([F.cross_entropy(scores / student_temperature, target) for scores in student]).sum()


def crop_distillation(
    student: Sequence[Tensor], targets: Sequence[Tensor], student_temperature: float
) -> dict[str, Tensor]:
    """The class tokens' loss of DINOv2 in its two parts, ``SSLMetaArch.forward_backward``.

    Their sum is the mean over all pairs of a target and another crop, eq. 3 of DINO; but without local crops the
    authors divide the two pairs that there are by 3.

    Args:
        student: V x ``[B, K]`` scores, the two global crops first.
        targets: 2 x ``[B, K]`` probabilities of the global crops, without gradient.
        student_temperature: > 0; 0.1 in the paper.

    Returns:
        ``global``, and ``local`` if there are local crops: means over the batch, in nats.
    """
    crops, local = student[:2], student[2:]
    pairs = 2 + max(2 * len(local), 1)
    across = [summed_distillation([s], [p], student_temperature) for s, p in zip(crops, targets[::-1], strict=True)]
    terms = {"global": torch.stack(across).sum() / pairs}
    if local:
        terms["local"] = summed_distillation(local, targets, student_temperature) / pairs
    return terms


@full_precision
def masked_distillation(
    student: Tensor, targets: Tensor, counts: Tensor, images: int, student_temperature: float
) -> Tensor:
    """Cross-entropy of hidden patches: the loss of masked image modelling of iBOT, eq. 2 of
    https://arxiv.org/abs/2111.07832.

    As ``iBOTLoss.forward`` (main_ibot.py of bytedance/ibot@da316d8) and ``iBOTPatchLoss.forward_masked``
    (facebookresearch/dinov2@b8931f7): the mean over an image's hidden patches, then over all images; images without
    hidden patches contribute 0 and are counted.

    Args:
        student: ``[P, K]`` scores of the hidden patches.
        targets: ``[P, K]`` probabilities of the same patches, which the teacher saw.
        counts: ``[P]`` number of hidden patches of the same image.
        images: How many crops the patches come from, with and without hidden patches.
        student_temperature: > 0; 0.1 in the paper.

    Returns:
        Mean over the images, in nats; 0 if nothing is hidden.
    """
    log_p = F.log_softmax(student / student_temperature, dim=1)
    return -((targets.detach() * log_p).sum(1) / counts).sum() / images


def uniform_distillation(counts: Tensor, images: int, outputs: Sequence[int], weights: Sequence[float]) -> Tensor:
    """Both losses when the student's scores are all equal: ln K for class tokens, and for crops that hide patches.

    Args:
        counts, images: As in :func:`masked_distillation`.
        outputs: Scores K of class tokens and of patches.
        weights: Of the two losses.

    Returns:
        The weighted sum, in nats; 1.5 ln K where half of the crops hide patches and weights are 1.
    """
    of_class, of_patches = (weight * math.log(k) for weight, k in zip(weights, outputs, strict=True))
    return of_class + of_patches * (1 / counts).sum() / images
