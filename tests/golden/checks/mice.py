"""MiCE: the bound of a mixture of experts over some steps, its memory, and the prototypes at the end of the epoch."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.mixture import simplex
from ssl_zoo.methods import mice
from ssl_zoo.modules.ema import EMA
from tests.golden.checks.moco import DTYPES
from tests.golden.checks.pcl import compare
from tests.golden.harness import Identity, Values, data_info, fill, no_recipe, numpy_of, steps_of


class Unit(nn.Module):
    """In place of the experts' heads: the recording starts at their outputs ``[B, K, D]``."""

    def forward(self, h: Tensor) -> Tensor:
        return F.normalize(h, dim=-1)


def method_of(h: Any, arrays: Values) -> mice.MiCE:
    gates = torch.tensor(arrays["init/gating_prototype"])
    with mock.patch.object(mice, "simplex", return_value=gates):  # more than fit with equal angles
        method = mice.MiCE(
            Identity(h["dim"]), no_recipe(), data_info(h["batch"]), Identity, h["clusters"], h["tau"], 0.9, h["queue"]
        )
    assert h["tau"] == h["kappa"]
    method.projector, method.teacher = Unit(), EMA(nn.Sequential(nn.Identity(), Unit()))  # type: ignore[assignment]
    queue = torch.tensor(arrays["init/queue"]).flatten(1)
    fill(method, {"queue.keys": queue, "prototypes": arrays["init/expert_prototype"]})
    return method


def replay(h: Any, arrays: Values, precision: str) -> dict[str, Any]:
    method = method_of(h, arrays).to(DTYPES[precision]).train()
    found: dict[str, Any] = {}
    for t in steps_of(arrays, "in/step{}/"):
        raw = [torch.tensor(arrays[f"in/step{t}/{name}_raw"]).to(DTYPES[precision]) for name in "fvg"]
        f, _, g = views = [view.requires_grad_() for view in raw]
        draws = RecordedRNG(shared={"shuffle": {"": torch.arange(h["batch"]).flip(0)}})
        mixtures: list[Any] = []

        def spy(*arguments: Any, seen: list[Any] = mixtures, inner: Any = mice.mixture_of_experts) -> Any:
            seen.append(inner(*arguments))
            return seen[-1]

        method.prototypes.grad = None
        with mock.patch.object(mice, "mixture_of_experts", spy):
            out = method.training_loss(Batch(views, torch.arange(h["batch"]), None, draws))
        out["loss"].backward()
        method.on_after_backward()
        step = {"loss": out["loss"], "posterior": mixtures[0].posterior, "log_pi": mixtures[0].log_gate}
        step |= {"grad_f_raw": f.grad, "grad_g_raw": g.grad, "grad_expert_prototype": method.prototypes.grad}
        queue = method.queue.keys.unflatten(1, (h["clusters"], h["dim"]))
        state = {"queue": queue, "pointer": torch.tensor(method.queue.pushed % method.queue.size)}
        found |= {f"step{t}/{name}": value for name, value in numpy_of(step).items()}
        found |= {f"state_after_step{t}/{name}": value for name, value in numpy_of(state).items()}
    found |= numpy_of({"epoch_end/accumulated_centres": method.centres.sums})
    method.on_train_epoch_end()
    return found | numpy_of({"epoch_end/expert_prototype": method.prototypes})


def check(document: Any, arrays: Values) -> None:
    compare(arrays, document["case"], lambda precision: replay(document["hyperparameters"], arrays, precision))


def check_centres(document: Any, arrays: Values) -> None:
    """The matrices that the authors stored with about eight digits, one for each number of clusters."""
    for key in (name for name in arrays if name.startswith(f"f64/{document['case']}/")):
        wanted = arrays[key]
        gap = np.abs(simplex(*wanted.shape).numpy() - wanted).max()
        assert gap <= 1e-7, f"{key}: largest difference {gap:.3g}"


CHECKS = {"mice": {"max_mahalanobis*": check_centres, "*": check}}
