"""What the observers share: looking at a network without touching it, and when to look."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import is_main
from ssl_zoo.features import extract
from ssl_zoo.layers import read_at
from ssl_zoo.sharding import gathered

# Of the latest validation pass of a method, so that two observers pay for one: (global step, layer), features, labels.
_VALIDATION: WeakKeyDictionary[nn.Module, tuple[tuple[int, int | None], Tensor, Tensor]] = WeakKeyDictionary()


@contextmanager
def observing(module: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Eval mode without gradients; afterwards every mode flag and every global generator is what it was.

    Flags are set one by one instead of by ``module.train()``, which a subclass may override and which would give a
    teacher that is always in eval mode its student's mode. Iterating a ``DataLoader`` draws a seed from torch's
    generator, and data code may draw from those of Python and NumPy: all of them are put back.
    """
    modes = [(part, part.training) for part in module.modules()]
    cuda = [device] if device is not None and device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    with gathered(module), torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            for part, _ in modes:
                part.training = False
            yield
        finally:
            for part, training in modes:
                part.training = training
            random.setstate(python)
            np.random.set_state(numpy)


def batch_features(method: Any, outputs: Any, batch: Batch, layer: int | None = None) -> Tensor:
    """Detached float32 features of a training batch, ``[B, F]``: those of the step, else ``embed`` of view 0.

    Args:
        layer: Of the encoder, as :func:`ssl_zoo.layers.read_at` takes it; it is always read from view 0.
    """
    if layer is None and isinstance(outputs, dict) and "features" in outputs:
        return outputs["features"].detach().float()
    with observing(method, method.device):
        return read_at(method, layer).embed(batch.views[0]).float()


def validation_features(trainer: pl.Trainer, method: Any, layer: int | None = None) -> tuple[Tensor, Tensor]:
    """Features ``[N, F]`` and labels ``[N]`` of the validation set at this step, read once for all observers."""
    known, now = _VALIDATION.get(method), (trainer.global_step, layer)
    if known is None or known[0] != now:
        loader = trainer.datamodule.val_loader()  # type: ignore[attr-defined]
        with observing(method, method.device):
            features, labels, _ = extract(read_at(method, layer), loader, method.device)
        known = _VALIDATION[method] = (now, features, labels)
    return known[1], known[2]


def forget_validation(method: nn.Module) -> None:
    """Free the features kept by :func:`validation_features`."""
    _VALIDATION.pop(method, None)


def unlabelled(trainer: pl.Trainer) -> str | None:
    """Why a probe cannot run on this data, in words, or None when it can."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if data.info.classes is None:
        return "the training set has no labels"
    loader = data.val_loader()
    if loader is None:
        return "there is no validation set (data.val_fraction=0.1 makes one)"
    return "the validation set has no labels" if loader.source.labels is None else None


def say(words: str) -> None:
    """One line for the person at the run, from the main process."""
    if is_main():
        print(words, flush=True)


def epoch_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether to evaluate at the end of this epoch: every N epochs, and at the end of the run.

    A run that is being stopped from outside (pre-emption) does not evaluate: its seconds belong to the checkpoint.
    """
    if trainer.should_stop:
        return False
    done = trainer.current_epoch + 1
    last = done == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
    return last or done % every_n_epochs == 0
