"""k-nearest-neighbour accuracy during training, beginning with the untrained network."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ssl_zoo import balancedness
from ssl_zoo.callbacks.observe import (
    epoch_due,
    forget_validation,
    observing,
    say,
    unlabelled,
    validation_features,
)
from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.features import accuracy, extract, labelled
from ssl_zoo.knn import knn_predict
from ssl_zoo.layers import read_at
from ssl_zoo.ranges import Positive, Size


class OnlineKNN(pl.Callback):
    """Weighted kNN of the validation set against a fixed bank of training samples, all in the evaluation view.

    The network before the first step is evaluated too (``untrained``): what training adds is measured against it.
    Memory is that of ``bank_size`` and validation features on the CPU, and the search is chunked. Without labels or
    a validation set the callback switches itself off and says so once.

    Logs ``knn/top1`` in percent, and on demand ``knn/balancedness``.

    Args:
        every_n_epochs: Epochs between evaluations; the last epoch is always evaluated.
        bank_size: Training samples in the bank, class-balanced.
        k: Neighbours that vote; 20 was best for most models in DINO (https://arxiv.org/abs/2104.14294, Sec. 3.2).
        temperature: Of the votes ``exp(similarity / temperature)``.
        chunk: Validation samples searched at a time.
        by_class: Log too how equal the classes fare (:func:`ssl_zoo.balancedness.balancedness`).
        layer: Of the encoder whose features are compared, 1 the first, -1 the last; None: the method's features.
    """

    def __init__(
        self,
        every_n_epochs: Size = 1,
        bank_size: Size = 10_000,
        k: Size = 20,
        temperature: Positive = 0.07,
        chunk: Size = 512,
        by_class: bool = False,
        layer: int | None = None,
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.bank_size = bank_size
        self.k = k
        self.temperature = temperature
        self.chunk = chunk
        self.by_class = by_class
        self.layer = layer
        self.enabled = True
        self.untrained: float | None = None
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        reason = unlabelled(trainer)
        self.enabled = reason is None
        if reason is not None:
            say(f"online_knn is off: {reason}")
            return
        method.metrics.update(self.latest)
        if trainer.global_step == 0:
            self._evaluate(trainer, method)
            self.untrained = self.latest["knn/top1"]

    def on_fit_end(self, trainer: pl.Trainer, method: Any) -> None:
        if not method.trains:  # Lightning has started no training
            self.on_train_start(trainer, method)

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        forget_validation(method)

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        if self.enabled and epoch_due(trainer, self.every_n_epochs):
            self._evaluate(trainer, method)

    def _evaluate(self, trainer: pl.Trainer, method: Any) -> None:
        query, labels = validation_features(trainer, method, self.layer)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = balanced_rows(data.train_labels, self.bank_size)
        with observing(method, method.device):
            bank = extract(read_at(method, self.layer), data.train_eval_loader(rows), method.device)
            query, labels = labelled(query.to(method.device), labels)
            settings = data.info.classes, self.k, self.temperature, self.chunk
            predicted = knn_predict(query, bank.features, bank.labels, *settings)
        self.latest = {"knn/top1": accuracy(predicted, labels)}
        if self.by_class:
            shares = balancedness.by_class(predicted, labels, data.info.classes)
            self.latest["knn/balancedness"] = balancedness.balancedness(shares)
        method.report(self.latest)

    def state_dict(self) -> dict[str, Any]:
        return {"latest": dict(self.latest), "untrained": self.untrained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.latest = dict(state_dict["latest"])
        self.untrained = state_dict["untrained"]
