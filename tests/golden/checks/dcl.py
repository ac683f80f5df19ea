"""DCL and DCLW: both directions by the method, each of them from the parts of its loss."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.chunked import log_sum_exp
from ssl_zoo.methods.dcl import DCL
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, no_recipe

LEAK = torch.tensor(math.log(1e-45)).item()  # the recorded code multiplies it by a float32 mask


def one_way(a: Tensor, b: Tensor, temperature: float, sigma: float | None) -> Tensor:
    """``DCL(a, b)``: only rows of ``a`` are anchors."""
    row = torch.arange(len(a))
    similarity = (a * b).sum(1)
    others = log_sum_exp(a, torch.cat([a, b]), temperature, torch.stack([row, row + len(a)], 1))
    taken_out = torch.logaddexp((a * a).sum(1) / temperature, similarity / temperature)
    weight = 1.0 if sigma is None else 2 - len(a) * torch.softmax(similarity / sigma, dim=0)
    return (torch.logaddexp(others, LEAK + taken_out) - weight * similarity / temperature).mean()


def check(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    views = [torch.tensor(arrays[f"raw{v}"]) for v in (1, 2)]
    method = DCL(Identity(h["dim"]), no_recipe(), Identity, h["temperature"], h["sigma"], LEAK)
    out = differentiate(method, views)
    for name, found in (("loss", "loss"), ("grad_raw1", "view0"), ("grad_raw2", "view1")):
        close(out[found], arrays[name], name)
    z = [F.normalize(view, dim=1) for view in views]
    for v in (1, 2):
        close(z[v - 1], arrays[f"z{v}"], f"unit rows of view {v}")
        value = one_way(z[v - 1], z[2 - v], h["temperature"], h["sigma"])
        close(value, arrays[f"loss_one_way_{v}{3 - v}"], f"loss of direction {v}")


CHECKS = {"dcl": {"*": check}}
