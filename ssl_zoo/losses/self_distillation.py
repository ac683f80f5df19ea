"""Self-distillation: a student matches the sharpened outputs of its own moving average on other crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.precision import full_precision


@torch.no_grad()
@full_precision
def centred_softmax(scores: Tensor, centre: Tensor | float, temperature: float) -> Tensor:
    """Targets of DINO, https://arxiv.org/abs/2104.14294 (algorithm 1): ``softmax((t - c) / temperature)``.

    Args:
        scores: ``[..., K]`` of the teacher.
        centre: ``[K]`` or ``[1, K]``; 0 for none.
        temperature: > 0; below the student's, which sharpens.

    Returns:
        ``[..., K]`` without gradient, rows sum to 1.
    """
    return ((scores - centre) / temperature).softmax(-1)


@full_precision
def self_distillation(
    student: Sequence[Tensor], targets: Sequence[Tensor], student_temperature: float, same_view: bool = False
) -> Tensor:
    """Cross-entropy between the targets of one view and the student's outputs for the others: eq. 3 of DINO.

    As ``DINOLoss.forward`` in main_dino.py of facebookresearch/dino@7c446df: the mean over all pairs of a target and
    another view, of which there are ``Q (V - 1)``.

    Args:
        student: V x ``[B, K]`` scores, those of the views that have targets first.
        targets: Q x ``[B, K]`` probabilities of the first Q views, without gradient.
        student_temperature: > 0; 0.1 in the paper.
        same_view: Also pair a view with its own target: then ``Q V`` pairs.

    Returns:
        Mean over the batch, in nats; ln K where student or target tell nothing apart.

    Raises:
        ValueError: If no pair is left, or a target has no view.
    """
    views, held = len(student), len(targets)
    pairs = held * views if same_view else held * (views - 1)
    if held > views or pairs < 1:
        raise ValueError(
            f"self_distillation: wants targets for 1 to all of the views, and a pair of different views; "
            f"got {views} view(s) and {held} target(s)"
        )
    total = student[0].new_zeros(())
    for v, scores in enumerate(student):
        others = [target.detach() for q, target in enumerate(targets) if same_view or q != v]
        if others:  # one cross-entropy with the sum of the targets is the sum of theirs
            total = total + F.cross_entropy(scores / student_temperature, torch.stack(others).sum(0))
    return total / pairs
