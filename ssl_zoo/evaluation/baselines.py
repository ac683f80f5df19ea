"""What a method must beat, under the same protocols: the numbers that samples come with, and the untrained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ssl_zoo.data.source import origin
from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.few_labels import few_label_top1
from ssl_zoo.evaluation.linear import linear_probe
from ssl_zoo.features import extract_on
from ssl_zoo.knn import knn_top1

SWEEP = (1.0, 0.1, 0.01)  # l2; thousands of correlated pixels want a strong one, and weak ones take minutes on a CPU


class Untrained(nn.Module):
    """An encoder that learns nothing: what the source itself makes of an evaluation view."""

    def __init__(self, baseline: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.embed = baseline


def given(datamodule: Any) -> dict[str, nn.Module]:
    """The numbers that the samples come with, by their name: raw pixels, of images; none where there are none."""
    source = origin(datamodule.train)
    baseline = getattr(source, "baseline", None)
    return {} if baseline is None else {source.baseline_name: Untrained(baseline)}  # type: ignore[attr-defined]


def loaders(datamodule: Any, samples: int | None = None, validated: bool = True) -> tuple[Any, Any]:
    """Evaluation loaders of the training set, labelled samples only, and of the validation set.

    Args:
        datamodule: As built.
        samples: Training samples at most, a fixed class-balanced choice; None: all.
        validated: Whether there must be a validation set; otherwise its loader may be None.

    Raises:
        ConfigError: If the data has no labels or no validation set, with the option that gives one.
    """
    labels = datamodule.train_labels
    if datamodule.info.classes is None or labels is None:
        raise ConfigError("evaluation needs labels and this data has none; choose labelled data with data=NAME")
    test = datamodule.val_loader()
    if test is None and validated:
        raise ConfigError("evaluation needs a validation set and this data has none; data.val_fraction=0.1 makes one")
    return datamodule.train_eval_loader(balanced_rows(labels, samples or len(labels))), test


def compare(
    module: Any,
    datamodule: Any,
    device: torch.device | str = "cpu",
    k: int = 20,
    temperature: float = 0.07,
    bank_size: int = 10_000,
    samples: int = 50_000,
    counts: Sequence[int] = (),
) -> dict[str, Any]:
    """kNN as the callback ``online_knn`` measures it, and linear probes, for anything with ``embed``.

    Args:
        module: Moved to ``device`` and back.
        datamodule: Labelled, with a validation set.
        k, temperature, bank_size: Of the callback, so that the numbers can stand in one table.
        samples: Training samples of the linear probe at most, class-balanced.
        counts: Labels a class with which :func:`few_label_top1` judges the same features.

    Returns:
        ``{"knn": ..., "linear": ...}``, top-1 in percent, and ``"l2_chosen"``, how the probe's penalty was, in words;
        with ``counts`` also ``{"few_labels": {"1": {"mean": ..., "spread": ...}, ...}}``.
    """
    train, test = (extract_on(module, loader, device) for loader in loaders(datamodule, samples))
    classes, bank = datamodule.info.classes, balanced_rows(train.labels, bank_size)
    near = knn_top1(*test[:2], train.features[bank], train.labels[bank], classes, k, temperature)
    line = linear_probe(*train[:2], *test[:2], sweep=SWEEP, classes=classes, device=device)
    few = few_label_top1(train, test, classes, counts, device)
    by_count = {str(count): score._asdict() for count, score in few.items()}
    found = {"knn": near, "linear": line["top1"], "l2_chosen": line["l2_chosen"]}
    return found | ({"few_labels": by_count} if few else {})


def untrained(cfg: DictConfig, datamodule: Any) -> Any:
    """The network with which the run of ``cfg`` began; global generators are left as they were."""
    from ssl_zoo.build import build_method

    with torch.random.fork_rng():
        return build_method(cfg, datamodule.info)
