"""NNCLR: neighbours, losses, gradients and the support set, step by step, of solo-learn and of lightly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.methods.nnclr import NNCLR
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, data_info, double_or_single, fill, no_recipe, steps_of


class Given(nn.Module):
    """Predictor whose outputs were recorded, in the order of the views."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = width
        self.outputs: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        return self.outputs.pop(0)


def method_of(h: Any, queue_size: int, in_view_negatives: bool, start: Tensor) -> NNCLR:
    method = NNCLR(
        Identity(h["dim"]), no_recipe(), data_info(h["batch"]), Identity, Given, h["temperature"], queue_size,
        in_view_negatives,
    ).to(start.dtype)
    fill(method, {"queue.keys": start})
    return method


def step(method: NNCLR, z: list[Tensor], p: list[Tensor]) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Neighbours' places, loss, and gradients of the predictions; the support set moves on."""
    p = [x.clone().requires_grad_() for x in p]
    method.predictor.outputs = list(p)
    places = [method.nearest(F.normalize(x, dim=1)) for x in z]
    loss = method.training_loss(batch_of(z))["loss"]
    loss.backward()
    method.on_after_backward()
    return places, loss, [x.grad for x in p]


def check_solo(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    method = method_of(h, h["queue_size"], False, torch.tensor(arrays["queue0"]))
    for t in steps_of(arrays, "z1_step{}"):
        z, p = ([torch.tensor(arrays[f"{x}{v}_step{t}"]) for v in (1, 2)] for x in "zp")
        places, loss, gradients = step(method, z, p)
        close(loss, arrays[f"loss_step{t}"], f"loss of step {t}")
        for v in (1, 2):
            close(places[v - 1], arrays[f"nn_idx{v}_step{t}"], f"neighbours of view {v} in step {t}")
            close(gradients[v - 1], arrays[f"grad_p{v}_step{t}"], f"gradient of prediction {v} in step {t}")
        close(method.queue.keys, arrays[f"queue_step{t}"], f"queue after step {t}")
    close(torch.tensor([method.queue.pushed % method.queue.size]), arrays["ptr_final"], "pointer")


def check_lightly(case: Any, arrays: Values) -> None:
    """Its bank keeps lengths, which no loss sees, takes the second view, and drops what does not fit before its end.

    Ours is refilled before each step with its unit rows, the first one repeated up to a multiple of the batch: the rows
    behind the end change no neighbour, and take what the recorded bank drops.
    """
    h = case["hyperparameters"]
    size = h["bank_size"]
    padding = -size % h["batch"]
    dtype = double_or_single(arrays["bank0"])
    bank = torch.tensor(arrays["bank0"])
    method = method_of(h, size + padding, True, torch.zeros(size + padding, h["dim"], dtype=dtype))
    for t in steps_of(arrays, "z0_step{}"):
        fill(method, {"queue.keys": F.normalize(torch.cat([bank, bank[:1].expand(padding, -1)]), dim=1)})
        z, p = ([torch.tensor(arrays[f"{x}{v}_step{t}"]) for v in (1, 0)] for x in "zp")
        places, loss, gradients = step(method, z, p)
        close(loss, arrays[f"loss_step{t}"], f"loss of step {t}")
        for v in (0, 1):
            place = torch.where(places[1 - v] < size, places[1 - v], 0)
            close(bank[place], arrays[f"nn{v}_step{t}"], f"neighbours of view {v} in step {t}")
            close(gradients[1 - v], arrays[f"grad_p{v}_step{t}"], f"gradient of prediction {v} in step {t}")
        bank = torch.tensor(arrays[f"bank_step{t}"])
        close(method.queue.keys[:size], F.normalize(bank, dim=1).numpy(), f"directions in the bank after step {t}")
        pointer = torch.tensor([method.queue.pushed % method.queue.size])
        close(pointer, arrays[f"ptr_step{t}"], f"pointer after step {t}")


CHECKS = {"nnclr": {"lightly*": check_lightly, "*": check_solo}}
