"""What can be said of features without labels: how many dimensions they use and how they lie on the sphere."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.callbacks.collapse import effective_rank, spread
from ssl_zoo.features import Features, extract_on

SAMPLES = 2_048  # training samples that are read at most
BLOCKS = 16  # of samples that lie together, where they are stored in shards
EPSILON = 1e-7  # RankMe's, added to every share
CONSTANT, FEW = 0.01, 2.0  # spread and rank below which features count as collapsed


class Measures(NamedTuple):
    """Of the features of some samples."""

    rankme: float
    alignment: float
    uniformity: float
    std: float
    images: int
    features: int  # width
    collapse: str | None  # what is wrong, in words


def look(
    module: Any, datamodule: Any, device: torch.device | str = "cpu", samples: int = SAMPLES
) -> tuple[Measures, Features]:
    """:func:`measure` on training samples, and the features of their evaluation views.

    Args:
        module: With ``embed``; moved to ``device`` and back.
        datamodule: Labels are not read.
        device: Where features are made.
        samples: So many at most, spread evenly over the training set.
    """
    train = datamodule.train
    rows = rows_of(len(train), samples) if train.shards is None else blocks_of(len(train), samples, BLOCKS)
    found = extract_on(module, datamodule.train_eval_loader(rows), device)
    loader = datamodule.train_eval_loader(rows)
    loader.view = datamodule.second_look(loader.view)
    again = extract_on(module, loader, device)
    return measure(found.features, again.features), found


def rows_of(count: int, samples: int) -> Tensor:
    """``[min(count, samples)]`` positions, evenly spaced."""
    kept = min(count, samples)
    return torch.arange(kept) * count // max(kept, 1)


def blocks_of(count: int, samples: int, blocks: int) -> Tensor:
    """As :func:`rows_of`, but in blocks of rows that follow one another: sharded data are read shard by shard."""
    each = max(min(count, samples) // blocks, 1)
    starts = rows_of(count, blocks)
    return (starts[:, None] + torch.arange(each)).clamp(max=count - 1).unique()


@torch.no_grad()
def measure(x: Tensor, again: Tensor) -> Measures:
    """The measures of features ``x`` and of those of the same samples' second looks, both ``[N, F]``."""
    if not bool(x.isfinite().all() and again.isfinite().all()):
        nothing = (float("nan"),) * 4
        return Measures(*nothing, len(x), x.shape[1], "features are not finite")
    std, collapse = spread(x).item(), None
    if std < CONSTANT:
        collapse = "every sample gets the same features"
    elif min(x.shape) > FEW and effective_rank(x).item() < FEW:
        collapse = "the features vary in one direction only"
    return Measures(rankme(x), alignment(x, again), uniformity(x), std, len(x), x.shape[1], collapse)


def rankme(x: Tensor) -> float:
    """RankMe, Garrido et al. 2023, https://arxiv.org/abs/2210.02885 eq. 1 and 2: how many dimensions features use.

    ``exp(-sum_k p_k log p_k)`` with ``p_k = sigma_k / sum_j sigma_j + 1e-7``, of the singular values of ``x``
    ``[N, F]``, which is not centred: between 1 and min(N, F). The paper reads embeddings and features, and finds it to
    order runs of one method by their linear accuracy.
    """
    x = x.double()
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x  # whose eigenvalues are the squares
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    # Rounding leaves some near 1e-16 of the largest, whose square roots would count as 1e-8 each.
    values = values.where(values > 1e-12 * values.max(), 0.0).sqrt()
    p = values / values.sum().clamp(min=1e-30) + EPSILON
    return (-(p * p.log()).sum()).exp().item()


def alignment(x: Tensor, y: Tensor) -> float:
    """Wang and Isola 2020, https://arxiv.org/abs/2005.10242, Sec. 4.1.1 with alpha = 2: ``mean |x - y|^2``, 0 to 4.

    Args:
        x, y: ``[N, F]`` features of positive pairs; normalised here.
    """
    return (F.normalize(x.double(), dim=1) - F.normalize(y.double(), dim=1)).square().sum(1).mean().item()


def uniformity(x: Tensor) -> float:
    """Wang and Isola 2020, Sec. 4.1.2 with t = 2: ``log mean exp(-2 |x_i - x_j|^2)`` over pairs of samples, 0 to -8.

    0: all features are one; the lower, the more evenly they fill the sphere (about -4 at best for many dimensions).

    Args:
        x: ``[N, F]`` features; normalised here. A single sample has no pair: 0.
    """
    squared = F.pdist(F.normalize(x.double(), dim=1)).square()
    return squared.mul(-2).exp().mean().log().item() if len(squared) else 0.0
