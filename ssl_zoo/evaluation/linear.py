"""Linear evaluation of frozen features: multinomial logistic regression by full-batch L-BFGS.

The protocol of Kornblith et al. 2019 (https://arxiv.org/abs/1805.08974, App. A.5) and SimCLR (App. B.8): no
augmentation, a sweep of the l2 penalty chosen on a held-out part of the training set, then a fit on all of it. Where
that part would have fewer samples than there are classes, parts are held out in turn (:mod:`ssl_zoo.evaluation.folds`).
The problem is convex, so the number depends on no learning rate, no batch size and, but for the held-out part, on
no seed. Features are standardised by the training set, which is what a batch norm without scale and offset in front of
the linear layer comes to (MAE, https://arxiv.org/abs/2111.06377 App. A.1). Papers that train their linear layer with
SGD on random crops differ from it by a point or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo import balancedness
from ssl_zoo.evaluation import folds
from ssl_zoo.features import Features, accuracy, labelled, topk_accuracy
from ssl_zoo.ranges import NonNegative, Part, Size

SWEEP = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
PENALTY = 0.1  # of half the squared weights against the sum of the losses, where nothing can choose (C = 10)
BLOCK = 2**24  # logits held at a time, 64 MB in float32


def objective(x: Tensor, labels: Tensor, head: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy plus ``l2 / 2 * |weight|^2``, and its gradient, in blocks of rows.

    Args:
        x: ``[N, F]``.
        labels: ``[N]`` in ``[0, C)``.
        head: ``[F + 1, C]``, the last row is the bias, which is not penalised.

    Returns:
        Scalar loss (nats) and gradient ``[F + 1, C]``.
    """
    weight, bias = head[:-1], head[-1]
    loss = l2 / 2 * weight.square().sum()
    grad = torch.cat([l2 * weight, torch.zeros_like(bias)[None]])
    step = max(BLOCK // head.shape[1], 1)
    for rows, target in zip(x.split(step), labels.split(step), strict=True):
        log_p = torch.addmm(bias, rows, weight).log_softmax(1)  # [n, C]
        loss = loss + F.nll_loss(log_p, target, reduction="sum") / len(x)
        error = log_p.exp_() / len(x)
        error[torch.arange(len(target), device=x.device), target] -= 1 / len(x)
        grad[:-1].addmm_(rows.T, error)
        grad[-1] += error.sum(0)
    return loss, grad


def fit(x: Tensor, labels: Tensor, l2: float, start: Tensor, iterations: int = 200, tolerance: float = 1e-5) -> Tensor:
    """Minimise :func:`objective` from ``start`` until no entry of the gradient exceeds ``tolerance``.

    Returns:
        Head ``[F + 1, C]``.
    """
    head = start.clone()
    solver = torch.optim.LBFGS(
        [head],
        max_iter=iterations,
        tolerance_grad=tolerance,
        tolerance_change=torch.finfo(x.dtype).eps,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        loss, head.grad = objective(x, labels, head, l2)
        return loss.item()

    solver.step(closure)
    return head


def held_out(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Mask ``[N]`` of a seeded share of every class; classes too small to give one keep all their samples."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = order[labels[order] == label]
        mask[rows[: int(len(rows) * fraction + 0.5) if len(rows) > 1 else 0]] = True
    return mask


def _scores(x: Tensor, head: Tensor) -> Tensor:
    return x @ head[:-1] + head[-1]


@torch.no_grad()
def linear_probe(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    sweep: Sequence[float] = SWEEP,
    classes: int | None = None,
    held_out_fraction: float = 0.1,
    seed: int = 0,
    iterations: int = 200,
    device: torch.device | str = "cpu",
    by_class: bool = False,
) -> dict[str, Any]:
    """Train a linear classifier on frozen features and test it.

    Args:
        train: ``[N, F]`` features of the training set; standardised here by their own mean and deviation.
        labels: ``[N]``, -1 = no label, left out.
        test: ``[M, F]``.
        test_labels: ``[M]``, -1 = left out.
        sweep: l2 penalties (per mean loss); scikit-learn's ``C`` is ``1 / (l2 * N)``.
        classes: Number of classes; by default one more than the highest training label.
        held_out_fraction: Share of the training set, class by class, on which the penalty is chosen; sets that are too
            small for it hold out folds in turn, and sets with one sample a class take ``PENALTY / N``.
        seed: Of that share, or of the folds.
        iterations: L-BFGS iterations at most, per penalty.
        device: Where to compute.
        by_class: Whether to add what :func:`ssl_zoo.balancedness.report` gives.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``train_top1`` in percent; the chosen ``l2``; ``l2_chosen``,
        how, in words; ``held_out`` top-1 by penalty.
    """
    train, labels = (t.to(device) for t in labelled(train, labels))
    test, test_labels = (t.to(device) for t in labelled(test, test_labels))
    if not len(train) or not len(test):
        raise ValueError(f"a linear probe needs labels: got {len(train)} labelled to train and {len(test)} to test")
    highest = int(labels.max())
    classes = classes or highest + 1
    if highest >= classes:
        raise ValueError(f"the linear probe was told of {classes} classes and the training set holds label {highest}")
    train, test = _standardised(train, test)
    chosen = _choose(train, labels, classes, sweep, held_out_fraction, seed, iterations)
    head = fit(train, labels, chosen.l2, chosen.head, iterations)
    scores = _scores(test, head)
    result: dict[str, Any] = {"top1": accuracy(scores.argmax(1), test_labels)}
    if classes > 5:
        result["top5"] = topk_accuracy(scores, test_labels, 5)
    if by_class:
        result |= balancedness.report(scores.argmax(1), test_labels, classes)
    result |= {"train_top1": accuracy(_scores(train, head).argmax(1), labels), "l2": chosen.l2}
    return result | {"l2_chosen": chosen.how, "held_out": chosen.top1}


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both by mean and deviation of ``train``; a dimension that never varies becomes 0. Half types become float32."""
    dtype = torch.promote_types(train.dtype, torch.float32)
    train, test = train.to(dtype), test.to(dtype)
    std, mean = torch.std_mean(train, 0, correction=0)
    scale = torch.where(std > 1e-6 * mean.abs() + 1e-12, 1 / std, 0.0)
    return (train - mean) * scale, (test - mean) * scale


class Chosen(NamedTuple):
    """A penalty, and how it was found."""

    l2: float
    head: Tensor  # [F + 1, C] of a fit with it, to begin with
    how: str
    top1: dict[str, float]  # held out, in percent, by penalty


def _choose(
    x: Tensor, labels: Tensor, classes: int, sweep: Sequence[float], fraction: float, seed: int, iterations: int
) -> Chosen:
    """The best penalty for samples that are held out; one penalty, or one sample a class, leaves no choice."""
    # From strong to weak: each fit starts at the last one, which is near.
    penalties = sorted({float(l2) for l2 in sweep}, reverse=True)
    start = x.new_zeros(x.shape[1] + 1, classes)
    if len(penalties) == 1:
        return Chosen(penalties[0], start, "given", {})
    parts, how = _parts(labels.cpu(), fraction, seed)
    if not parts:
        return Chosen(PENALTY / len(x), start, how, {})
    hits, heads = dict.fromkeys(penalties, 0), {}
    for held in (part.to(x.device) for part in parts):
        head = start
        for l2 in penalties:
            heads[l2] = head = fit(x[~held], labels[~held], l2, head, iterations)
            hits[l2] += int((_scores(x[held], head).argmax(1) == labels[held]).sum())
    samples = sum(int(part.sum()) for part in parts)
    top1 = {l2: 100.0 * (hit / samples) for l2, hit in hits.items()}
    best = max(top1, key=lambda l2: (top1[l2], l2))  # the simpler model of two that are equally good
    return Chosen(best, heads[best], how, {f"{l2:g}": value for l2, value in top1.items()})


def _parts(labels: Tensor, fraction: float, seed: int) -> tuple[list[Tensor], str]:
    """Masks ``[N]`` of what is held out, one after the other, and what that is called; none: nothing can be."""
    held = held_out(labels, fraction, seed)
    if int(held.sum()) >= len(labels.unique()):
        return [held], f"on {fraction:.0%} of the training samples"
    parts = folds.masks(labels, seed)
    return parts, f"in {len(parts)} folds of the training samples" if parts else "by nothing: one sample a class"


def evaluate(
    train: Features,
    test: Features,
    classes: int,
    sweep: Sequence[NonNegative] = SWEEP,
    held_out_fraction: Part = 0.1,
    seed: int = 0,
    iterations: Size = 200,
    device: torch.device | str = "cpu",
    by_class: bool = False,
) -> dict[str, Any]:
    """The linear protocol of ``conf/protocol/linear.yaml``: :func:`linear_probe` on extracted features."""
    return linear_probe(*train[:2], *test[:2], sweep, classes, held_out_fraction, seed, iterations, device, by_class)
