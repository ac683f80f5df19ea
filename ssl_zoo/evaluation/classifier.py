"""Accuracy of the classifier that a network itself has learnt: supervised, fine-tuned, distilled, noisy student."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import Judged
from ssl_zoo.features import Features, accuracy, extract, labelled, topk_accuracy


class Classes(nn.Module):
    """A method's encoder and classifier as one network: ``[B, C, H, W]`` to logits."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        classifier = getattr(method, "classifier", None)
        if not isinstance(classifier, nn.Module):
            raise ConfigError(
                f"{type(method).__name__} has no classifier of its own; judge its features (protocol=linear), or give "
                "it one (protocol=finetune)"
            )
        self.encoder = method.encoder
        self.classifier = classifier

    def embed(self, view: Tensor) -> Tensor:
        return self.classifier(self.encoder(view))


def scores(method: Any, loader: Iterable[Any], device: torch.device | str) -> Features:
    """Logits ``[N, C]`` of everything in ``loader``, with labels and positions."""
    return extract(Classes(method), loader, device)


def judge(found: Features, classes: int) -> dict[str, Any]:
    """``top1`` and, with more than five classes, ``top5`` in percent, of the labelled rows."""
    logits, labels = labelled(found.features, found.labels)
    if not len(labels):
        raise ConfigError(
            "evaluation needs labels and no validation sample has one; data.val_fraction=0.1 holds labelled training "
            "samples out instead"
        )
    if logits.shape[1] != classes:
        raise ConfigError(f"the classifier knows {logits.shape[1]} classes and the data has {classes}")
    numbers = {"top1": accuracy(logits.argmax(1), labels)}
    return numbers | ({"top5": topk_accuracy(logits, labels, 5)} if classes > 5 else {})


def validation_of(datamodule: Any) -> Any:
    """Loader of the validation set.

    Raises:
        ConfigError: If the data has no labels or no validation set, with the option that gives one.
    """
    loader = datamodule.val_loader()
    if datamodule.info.classes is None or loader is None:
        lacks = "labels" if datamodule.info.classes is None else "a validation set"
        hint = "choose labelled data with data=NAME" if lacks == "labels" else "data.val_fraction=0.1 makes one"
        raise ConfigError(f"evaluation needs {lacks} and this data has none; {hint}")
    return loader


def evaluate(judged: Judged) -> dict[str, Any]:
    """The protocol of ``conf/protocol/classifier.yaml``."""
    found = scores(judged.method, validation_of(judged.datamodule), judged.device)
    numbers = judge(found, judged.datamodule.info.classes)
    return {**numbers, "samples": {"test": int((found.labels >= 0).sum())}}
