"""NAT: scores, the assignment of a batch and of all samples, and the loss before and after the exchange."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods.noise_as_targets import NoiseAsTargets
from ssl_zoo.modules.noise_targets import best_assignment
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, data_info, fill, no_recipe


class NoLayers(nn.Sequential):
    """Head that passes its input on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width


def step(case: Any, arrays: Values, epoch: int, scope: Literal["global", "rank"]) -> tuple[Any, Tensor, Tensor]:
    """The method after a step, its outputs with their gradient, and the loss."""
    h = case["hyperparameters"]
    method = NoiseAsTargets(Identity(h["D"]), no_recipe(), data_info(h["N"]), NoLayers, scope=scope).double()
    fill(method, {"noise.targets": arrays["targets"], "noise.assigned": arrays["assignment_before"]})
    method.progress = Progress(epoch, 10, 1)
    outputs = torch.tensor(arrays["outputs"]).double().requires_grad_()
    index = torch.tensor(arrays["batch_index"])
    rng = RecordedRNG(sample={"dropout": {}})
    loss = method.training_loss(Batch([outputs], index, None, rng))["loss"]
    loss.backward()
    method.on_after_backward()
    return method, outputs, loss


def check(case: Any, arrays: Values) -> None:
    before = torch.tensor(arrays["assignment_before"])
    for epoch in (1, 2):
        method, outputs, loss = step(case, arrays, epoch, "global")
        close(loss, arrays["loss_before"], "loss in an epoch without exchange")
        close(outputs.grad, arrays["grad_before"], "gradient without exchange")
        assert torch.equal(method.noise.assigned, before)
    z = method.project(outputs, RecordedRNG(sample={"dropout": {}}).sample("dropout"))
    held = method.noise.targets[method.noise.of(torch.tensor(arrays["batch_index"]))]
    close((z @ held.T).float(), arrays["scores"], "scores")
    found = best_assignment(z @ held.T)
    close(found, arrays["batch_assignment"], "who gets whose target")
    close((z * held[found]).sum().float(), arrays["assigned_score"], "score of the assignment")
    for scope in ("global", "rank"):
        for epoch in (0, 3):
            method, outputs, loss = step(case, arrays, epoch, scope)
            close(loss, arrays["loss_after"], "loss after the exchange")
            close(outputs.grad, arrays["grad_after"], "gradient after the exchange")
            close(method.noise.assigned, arrays["assignment_after"], "targets of all samples")


CHECKS = {"noise_as_targets": {"all": check}}
