"""Which samples train, which are held out, and which keep their labels: pure functions of sizes and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.data.source import Part, Source
from ssl_zoo.errors import ConfigError


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable; unlike Python's ``hash`` it is the same in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def fixed_permutation(n: int) -> Tensor:
    """The permutation that subsets and held-out parts are cut from: ``numpy.random.RandomState(0).permutation(n)``.

    NumPy keeps this legacy stream unchanged for good, so a subset is the same with every version, seed and machine,
    and a smaller subset is the beginning of a larger one.
    """
    return torch.from_numpy(np.random.RandomState(0).permutation(n).astype(np.int64))


def split(
    source: Source, subset: int | None, val_fraction: float | None, imbalance: float | None = None
) -> tuple[Part, Part | None]:
    """Cut the training source into what trains and what is held out.

    Args:
        source: The whole training set.
        subset: Keep the first ``subset`` samples of the fixed permutation, in its order; None: all, in their own order.
        val_fraction: Hold out this share of N, the end of the fixed permutation; None: nothing.
        imbalance: Keep a long tail only (:func:`long_tail`), before anything else; None: all N samples.
    """
    kept = torch.arange(len(source)) if imbalance is None else long_tail(source.labels, source.classes, imbalance)
    n = len(kept)
    held = _held(n, val_fraction)
    whole = subset is None and not held
    order = torch.arange(n) if whole else fixed_permutation(n)
    pool, rest = order[: n - held], order[n - held :].sort().values
    if subset is None:
        positions = pool.sort().values
    elif 1 <= subset <= len(pool):
        positions = pool[:subset]
    else:
        less = f" ({n} less data.val_fraction)" if held else ""
        raise ConfigError(f"data.subset={subset}: wanted null, or 1 to {len(pool)}, all training samples{less}")
    return Part(source, kept[positions]), Part(source, kept[rest]) if held else None


def _held(n: int, fraction: float | None) -> int:
    if fraction is None:
        return 0
    if not 0 < fraction < 1:
        raise ConfigError(f"data.val_fraction={fraction}: wanted null, or a share between 0 and 1")
    held = max(round(n * fraction), 1)
    if held >= n:
        raise ConfigError(f"data.val_fraction={fraction}: nothing of {n} samples is left to train on")
    return held


def long_tail(labels: Tensor | None, classes: Sequence[str] | None, ratio: float) -> Tensor:
    """Sorted rows of a training set whose classes shrink exponentially: https://arxiv.org/abs/1901.05555, Sec. 5.

    Class c of C keeps ``int(N // C * ratio ** (-c / (C - 1)))`` samples, at least one, at most all it has, and always
    the same ones: on CIFAR those of ``IMBALANCECIFAR10`` of kaidic/LDAM-DRW@65e2597, the usual long-tailed CIFAR.

    Args:
        labels: ``[N]`` int64.
        classes: Names of the C classes.
        ratio: Largest class by smallest, >= 1; 100 in most papers.

    Raises:
        ConfigError: If there are samples without label, or the ratio or the number of classes leaves nothing to do.
    """
    if labels is None or classes is None or bool((labels < 0).any()):
        which = "has no labels" if labels is None or classes is None else "has samples without a label"
        raise ConfigError(
            f"data.imbalance={ratio}: the training set {which}, so its classes cannot be cut; set data.imbalance=null"
        )
    if ratio < 1 or len(classes) < 2:
        raise ConfigError(
            f"data.imbalance={ratio}: wanted null, or how many times larger the first of two or more classes is than "
            f"the last (100 in most papers); the training set has {len(classes)} classes"
        )
    random = np.random.RandomState(0)
    kept = []
    for c in range(len(classes)):
        rows = (labels.cpu() == c).nonzero().flatten().numpy()
        random.shuffle(rows)
        count = max(int(len(labels) // len(classes) * (1 / ratio) ** (c / (len(classes) - 1.0))), 1)
        kept.append(torch.from_numpy(rows[:count]))
    return torch.cat(kept).sort().values


def labelled_rows(labels: Tensor | None, fraction: float, seed: int) -> Tensor:
    """Sorted rows that keep their label: ``fraction`` of each class, at least one sample of each.

    Args:
        labels: ``[N]`` int64, -1 = none; None: the set has no labels, which is refused.
        fraction: 0 < fraction <= 1.
        seed: Of the draw; one class's draw does not depend on the others.
    """
    if labels is None:
        raise ConfigError(f"data.labels={fraction}: the training set has no labels; set data.labels=null")
    if not 0 < fraction <= 1:
        raise ConfigError(f"data.labels={fraction}: wanted null, or the share of labels to keep, above 0 and at most 1")
    kept = []
    for label in labels[labels >= 0].unique().tolist():
        rows = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(seed_of("labels", seed, label))
        chosen = torch.randperm(len(rows), generator=generator)[: max(round(len(rows) * fraction), 1)]
        kept.append(rows[chosen])
    return torch.cat(kept).sort().values


def keep_labels(part: Part, rows: Tensor) -> Part:
    """The same samples, with the labels of ``rows`` only."""
    assert part.labels is not None
    labels = torch.full_like(part.labels, -1)
    labels[rows] = part.labels[rows]
    return Part(part.source, part.positions, labels)


def balanced_rows(labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Positions of ``count`` labelled samples, spread over the classes as evenly as they allow; always the same ones.

    Args:
        labels: ``[N]`` int64; -1 (no label) is never chosen.
        count: At most this many; all labelled samples where there are fewer.
        seed: Of the choice. Fewer samples of one seed are among more of it.

    Returns:
        ``[<= count]`` positions in increasing order.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order] >= 0]
    by_class = order[labels[order].argsort(stable=True)]  # classes one after the other, each in random order
    sizes = labels[by_class].bincount()
    starts = sizes.cumsum(0) - sizes
    turn = torch.arange(len(by_class)) - starts[labels[by_class]]  # 0 for the first of each class, 1 for the second
    return by_class[turn.argsort(stable=True)[:count]].sort().values
