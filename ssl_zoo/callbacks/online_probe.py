"""Linear probe that learns beside the method and never reaches it."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.callbacks.observe import (
    batch_features,
    epoch_due,
    forget_validation,
    say,
    unlabelled,
    validation_features,
)
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import all_reduce_sum_, world_size
from ssl_zoo.ranges import NonNegative, Positive, Size


class Probe(nn.Module):
    """Standardise, then one linear layer: ``[B, F]`` -> ``[B, C]``.

    Batch norm without affine before the classifier follows MAE's linear probe (https://arxiv.org/abs/2111.06377,
    App. A.1): one learning rate then suits features of any scale. Its statistics are those of the global batch, so
    devices change nothing. Weights start at zero (the problem is convex), so that no random number is drawn.
    """

    mean: Tensor
    var: Tensor
    batches: Tensor

    def __init__(self, features: int, classes: int, momentum: float = 0.1, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, features))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.register_buffer("batches", torch.zeros(()))
        self.momentum = momentum
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self._global_moments(x) if self.training else (self.mean, self.var)
        return F.linear((x - mean) * (var + self.eps).rsqrt(), self.weight, self.bias)

    @torch.no_grad()
    def _global_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = all_reduce_sum_(x.mean(0)) / world_size()
        var = all_reduce_sum_((x - mean).square().mean(0)) / world_size()
        # A plain mean over the first batches, as if the start at (0, 1) had never been: an evaluation after a dozen
        # steps would else still see it.
        self.batches += 1
        share = (1 / self.batches).clamp(min=self.momentum)
        self.mean.lerp_(mean, share)
        self.var.lerp_(var, share)
        return mean, var


class OnlineProbe(pl.Callback):
    """Train a linear classifier on the detached features of each training batch; report its validation accuracy.

    The method's weights, modes, buffers and random numbers are untouched. The probe is saved with the run and resumes
    bit for bit. Without labels or a validation set it switches itself off and says so once.

    Logs ``probe/top1`` (percent of the validation set) and ``probe/train_top1`` (percent of the augmented training
    views since the last evaluation).

    Args:
        every_n_epochs: Epochs between evaluations; the last epoch is always evaluated.
        lr: AdamW's learning rate, constant, whatever the batch size.
        weight_decay: Decoupled weight decay of the classifier.
        layer: Of the encoder whose features are classified, 1 the first, -1 the last; None: the method's features.
    """

    def __init__(
        self,
        every_n_epochs: Size = 1,
        lr: Positive = 1e-2,
        weight_decay: NonNegative = 0.0,
        layer: int | None = None,
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.layer = layer
        self.enabled = True
        self.latest: dict[str, float] = {}
        self.probe: Probe | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._saved: dict[str, Any] = {}
        self._counts: Tensor | None = None  # [2] right and seen on all ranks since the last evaluation

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        reason = unlabelled(trainer)
        self.enabled = reason is None
        if reason is not None:
            say(f"online_probe is off: {reason}")
        method.metrics.update(self.latest)
        if self.enabled and self._saved.get("probe"):
            # Now, because a run that goes on from the last step of an epoch evaluates before it has a batch.
            width = self._saved["probe"]["weight"].shape[1]
            self._build(width, trainer.datamodule.info.classes, method.device)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: pl.Trainer, method: Any) -> None:
        forget_validation(method)

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not self.enabled or batch.label is None:
            return
        features = batch_features(method, outputs, batch, self.layer)
        self._learn(features, batch.label.to(features.device), trainer)

    def _learn(self, features: Tensor, label: Tensor, trainer: pl.Trainer) -> None:
        if self.probe is None:
            self._build(features.shape[1], trainer.datamodule.info.classes, features.device)  # type: ignore[attr-defined]
        assert self.probe is not None and self.optimizer is not None and self._counts is not None
        if features.shape[1] != self.probe.weight.shape[1]:
            raise _other(tuple(self.probe.weight.shape), (self.probe.weight.shape[0], features.shape[1]))
        with torch.enable_grad():
            logits = self.probe(features)  # [B, C]
            known = label >= 0 if label.dim() == 1 else label.sum(1) > 0  # [B]
            target = label.clamp(min=0) if label.dim() == 1 else label.to(logits.dtype)
            losses = F.cross_entropy(logits, target, reduction="none").where(known, 0.0)
            hard = label if label.dim() == 1 else label.argmax(1)
            right = (logits.detach().argmax(1) == hard) & known
            seen = all_reduce_sum_(torch.stack([right.sum(), known.sum()]))
            # All ranks divide by the global count, and the gradients are summed: the mean over the labelled rows.
            gradients = torch.autograd.grad(losses.sum() / seen[1].clamp(min=1), list(self.probe.parameters()))
        for parameter, gradient in zip(self.probe.parameters(), gradients, strict=True):
            parameter.grad = all_reduce_sum_(gradient.contiguous())
        self.optimizer.step()
        self._counts += seen

    def _build(self, features: int, classes: int, device: torch.device) -> None:
        self.probe = Probe(features, classes).to(device)
        self.optimizer = torch.optim.AdamW(self.probe.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        if not self._saved:
            return
        shape = tuple(self._saved["probe"]["weight"].shape)
        if shape != (classes, features):
            raise _other(shape, (classes, features))
        self.probe.load_state_dict(self._saved["probe"])
        self.optimizer.load_state_dict(self._saved["optimizer"])
        self._counts.copy_(self._saved["counts"])
        self._saved = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, method: Any) -> None:
        if self.enabled and self.probe is not None and epoch_due(trainer, self.every_n_epochs):
            self.latest = self._evaluate(trainer, method)
            method.report(self.latest)

    def _evaluate(self, trainer: pl.Trainer, method: Any) -> dict[str, float]:
        assert self.probe is not None and self._counts is not None
        features, labels = validation_features(trainer, method, self.layer)
        device = self._counts.device
        self.probe.eval()
        with torch.no_grad():
            guesses = [self.probe(part.to(device)).argmax(1).cpu() for part in features.split(4096)]
        self.probe.train()
        labels, known = labels.cpu(), labels.cpu() >= 0
        right = ((torch.cat(guesses) == labels) & known).sum()
        seen = self._counts.tolist()
        self._counts.zero_()
        return {
            "probe/top1": 100.0 * right.item() / max(int(known.sum()), 1),
            "probe/train_top1": 100.0 * seen[0] / max(seen[1], 1),
        }

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"latest": dict(self.latest)}
        if self.probe is None or self.optimizer is None or self._counts is None:
            return state | self._saved
        return state | {
            "probe": self.probe.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counts": self._counts,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.latest = dict(state.pop("latest"))
        # The width of the features is known at the first batch; until then the state waits.
        self._saved, self.probe, self.optimizer = state, None, None


def _other(saved: tuple[int, ...], wanted: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"online_probe: the checkpoint's probe is [classes, features] = {list(saved)} and this run's is {list(wanted)}"
        "; resume with the data, backbone and layer of the checkpoint, or callbacks=none"
    )
