"""A training step without a trainer."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.base import Method


def one_step(method: Method, batch: Batch) -> Tensor:
    """One optimizer step in the order that Lightning and the base keep; the loss, not read."""
    method.begin_micro_batch(first=True)
    loss = method.training_loss(batch)["loss"]
    method.bound.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    method.on_after_backward()
    method.configure_gradient_clipping(method.bound.optimizer)
    method.bound.optimizer.step()
    method.progress = replace(method.progress, step=method.progress.step + 1)
    return loss.detach()
