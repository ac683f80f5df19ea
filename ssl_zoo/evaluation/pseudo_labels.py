"""Pseudo-labels of a training set: what a network guesses, filtered and balanced as Noisy Student's authors do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_zoo.data.pseudo import PseudoLabels
from ssl_zoo.data.splits import seed_of
from ssl_zoo.distributed import is_main
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.classifier import scores
from ssl_zoo.evaluation.run import Judged


class Balance(NamedTuple):
    threshold: Tensor  # [C] float64, confidence from which on a class's samples are kept
    available: Tensor  # [C] int64, how many samples reach it
    copies: Tensor  # [N] int64, how often each sample is used; 0: dropped


def balanced(probabilities: Tensor, count: int, least: float, draws: Tensor, upsample: bool = True) -> Balance:
    """About ``count`` samples of each guessed class, the most confident ones, repeated where they are too few.

    As ``get_threshold`` and ``get_keep_image_idx`` of filter_unlabel.py in google-research/noisystudent@aac52bf: a
    class's threshold is the highest hundredth that ``count`` of its samples reach, ``least`` if there is none; samples
    that are kept are used ``count / available`` times, the fraction at random.

    Args:
        probabilities: ``[N, C]``; a sample's class is its likeliest.
        count: Samples wanted of each class.
        least: Lowest confidence, in hundredths.
        draws: ``[N]`` in [0, 1): a sample gets one copy more where it is below the fraction.
        upsample: Whether samples are repeated.
    """
    confidence, guess = probabilities.double().max(1)
    grid = torch.arange(101, dtype=torch.float64) / 100
    grid = grid[grid >= least].flip(0)  # from 1 down
    threshold = torch.full((probabilities.shape[1],), least, dtype=torch.float64)
    available = torch.zeros(probabilities.shape[1], dtype=torch.int64)
    copies = torch.zeros(len(probabilities), dtype=torch.int64)
    for c in guess.unique().tolist():
        own = (guess == c).nonzero().flatten()
        reach = (confidence[own][None] >= grid[:, None]).sum(1)  # [thresholds]
        enough = (reach >= count).nonzero().flatten()
        chosen = int(enough[0]) if len(enough) else len(grid) - 1
        threshold[c], available[c] = grid[chosen], reach[chosen]
        kept = own[confidence[own] >= grid[chosen]]
        times = count / max(len(kept), 1)
        times = times if upsample else min(times, 1.0)
        copies[kept] = int(times) + (draws[kept] < times - int(times)).long()
    return Balance(threshold, available, copies)


def evaluate(
    judged: Judged,
    out: str | None = None,
    hard: bool = False,
    confidence: float = 0.3,
    per_class: int | None = None,
    ratio: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The command ``ssl-zoo pseudo-label``, whose keys are those of ``conf/protocol/pseudo_labels.yaml``.

    The network sees the evaluation view of every training sample. True labels decide on nothing but which samples are
    unlabelled; the accuracy that is reported is theirs where the data knows them.

    Raises:
        ConfigError: If no file is named, the network has no classifier, or no sample is left.
    """
    if out is None:
        raise ConfigError("out is not given; wanted out=FILE, a new file for data.pseudo_labels=FILE")
    if not 0 <= confidence <= 1:
        raise ConfigError(f"confidence={confidence}: wanted a probability, 0 (keep all) to 1")
    data = judged.datamodule
    found = scores(judged.method, data.train_eval_loader(), judged.device)
    probabilities = torch.softmax(found.features.double(), dim=1)
    labels = found.labels
    known = labels >= 0
    copies = torch.ones(len(labels), dtype=torch.int64)
    draws = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed_of("copies", seed)))
    copies[~known] = _chosen(probabilities[~known], confidence, per_class, draws[~known])
    unlabelled, labelled = int(copies[~known].sum()), int(known.sum())
    if not unlabelled:
        raise ConfigError(
            f"no unlabelled sample is guessed with a confidence of {confidence}; lower it with confidence=..., or "
            "leave samples without a label with data.labels=0.1"
        )
    if ratio is not None and labelled:
        copies[known] = max(round(unlabelled / (ratio * labelled)), 1)
    guessed = torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1]) if hard else probabilities
    if is_main():
        PseudoLabels(guessed.float(), copies, data.train.positions.cpu()).write(Path(out).expanduser())
    samples = {"labelled": labelled, "unlabelled": len(labels) - labelled}
    samples |= {"kept": int((copies[~known] > 0).sum()), "an epoch": int(copies.sum())}
    return {"file": out, "top1": _accuracy(judged, probabilities, copies, known), "samples": samples}


def _chosen(probabilities: Tensor, confidence: float, per_class: int | None, draws: Tensor) -> Tensor:
    if per_class is not None:
        return balanced(probabilities, per_class, confidence, draws).copies
    return (probabilities.max(1).values >= confidence).long()


def _accuracy(judged: Judged, probabilities: Tensor, copies: Tensor, known: Tensor) -> float | None:
    """Percent of the kept guesses that are right, where data.labels has only hidden the labels."""
    data = judged.datamodule
    truth = data.train.source.labels
    if truth is None:
        return None
    truth = truth.cpu()[data.train.positions.cpu()]
    rows = (copies > 0) & ~known & (truth >= 0)
    return 100.0 * (probabilities.argmax(1) == truth)[rows].double().mean().item() if bool(rows.any()) else None
