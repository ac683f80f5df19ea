"""How equal the classes fare: Kang et al. 2021, https://openreview.net/forum?id=OqtLIabPTit (Sec. 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def by_class(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Accuracy within each class.

    Args:
        predicted, labels: ``[N]`` int64.
        classes: C.

    Returns:
        ``[C]`` in [0, 1], NaN for a class without a sample.
    """
    labels = labels.cpu()
    hits = labels[predicted.cpu() == labels].bincount(minlength=classes)
    return hits.double() / labels.bincount(minlength=classes)


def balancedness(accuracies: Tensor, scale: float = 1.0) -> float:
    """``sum_ij exp(-|a_i - a_j| / scale) / C^2`` over all pairs of classes, so that 1 says that all fare the same.

    Args:
        accuracies: ``[C]`` accuracy within each class, in [0, 1]; classes without a sample (NaN) are left out.
        scale: > 0, the paper's sigma.
    """
    known = accuracies[~accuracies.isnan()].double()
    return torch.exp(-(known[:, None] - known).abs() / scale).mean().item()


def report(predicted: Tensor, labels: Tensor, classes: int) -> dict[str, Any]:
    """``balancedness``, and ``top1_by_class`` in percent (None for a class without a sample)."""
    accuracies = by_class(predicted, labels, classes)
    shares = [None if share != share else 100.0 * share for share in accuracies.tolist()]
    return {"balancedness": balancedness(accuracies), "top1_by_class": shares}
