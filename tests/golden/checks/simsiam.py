"""SimSiam: the loss, and whole training loops with and without a constant rate for the predictor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.losses.regression import negative_cosine
from ssl_zoo.methods.simsiam import SimSiam
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.schedules import Progress, WarmupCosine
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of, double_or_single, fill, numpy_of, plain, recipe, steps_of
from tests.helpers import train_step


def losses(arrays: Values, dtype: torch.dtype) -> dict[str, np.ndarray]:
    p = [torch.tensor(arrays[name]).to(dtype).requires_grad_() for name in ("p1", "p2")]
    z = [torch.tensor(arrays[name]).to(dtype) for name in ("z1", "z2")]
    loss = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    loss.backward()
    return numpy_of({"loss": loss, "grad_p1": p[0].grad, "grad_p2": p[1].grad})


def check_loss(case: Any, arrays: Values) -> None:
    found, double = (losses(arrays, dtype) for dtype in (double_or_single(arrays["p1"]), torch.float64))
    for name, value in found.items():
        close(value, arrays[name], name, double=double[name])


class Encoder(nn.Module):
    """The recording's encoder below ``fc``: ``relu(x @ body^T)``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.body = nn.Linear(in_features, out_features, bias=False)
        self.out_features = out_features

    def forward(self, view: Tensor) -> Tensor:
        return F.relu(self.body(view))


def method_of(h: Any, steps: int, dtype: torch.dtype) -> SimSiam:
    """As conf/method/simsiam.yaml and conf/optimizer/simsiam.yaml, with the recorded widths and rates."""
    rules = {"predictor": {"match": "^predictor", "lr": h["init_lr"]}} if h["fix_pred_lr"] else {}
    values = {"momentum": h["momentum"], "weight_decay": h["weight_decay"]}
    method = SimSiam(
        Encoder(h["in_dim"], h["width"]),
        recipe(torch.optim.SGD, rules, lr=WarmupCosine(h["init_lr"], per_epoch=True), **values),
        projector=partial(
            MLP, hidden=[-1, -1], out_features=h["dim"], bias=False, last_norm="batch_no_affine", last_bias="frozen"
        ),
        predictor=partial(MLP, hidden=[h["pred_dim"]], out_features=-1, bias=False, last_bias=True),
    ).to(dtype)
    method.bind(h["batch"])
    method.progress = Progress(h["epoch"] * steps, h["epochs"] * steps, steps)
    return method.train()


def ours(name: str) -> str:
    return name.replace("encoder.fc.", "projector.").replace("encoder.", "backbone.")


def keep(found: dict[str, Any], names: Iterator[str], _: Any, __: Any, out: Tensor) -> None:
    """A forward hook: one output after another under the names of the views."""
    found[next(names)] = out


def replay(h: Any, arrays: Values, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Rates, losses, outputs of both heads, gradients and state of every step, under the recorded names."""
    steps = steps_of(arrays, "x_step{}_view1")
    method = method_of(h, len(steps), dtype)
    method.bound.apply(method.progress)
    found: dict[str, Any] = {"rates": sorted(group["lr"] for group in method.bound.optimizer.param_groups)}
    fill(method, {ours(name.removeprefix("param0.")): value for name, value in plain(arrays, "param0.").items()})
    for t in steps:
        for name, head in (("z", method.projector), ("p", method.predictor)):
            head.register_forward_hook(partial(keep, found, iter((f"step{t}_{name}1", f"step{t}_{name}2"))))
        views = [torch.tensor(arrays[f"x_step{t}_view{v}"]).to(dtype) for v in (1, 2)]
        out = train_step(method, batch_of(views))
        for head in (method.projector, method.predictor):
            head._forward_hooks.clear()
        found[f"loss_step{t}"] = out["loss"]
        for kind, values in (
            ("param", method.state_dict()),
            ("buffer", method.state_dict()),
            ("grad", out["gradients"]),
        ):
            found |= {n: values[ours(n.removeprefix(f"{kind}{t}."))].clone() for n in plain(arrays, f"{kind}{t}.")}
    return numpy_of(found)


def check_train(case: Any, arrays: Values) -> None:
    """Batch norms of a few rows enlarge what float32 rounds; one run in each precision says by how much."""
    h = case["hyperparameters"]
    found, double = (replay(h, arrays, dtype) for dtype in (double_or_single(arrays["x_step1_view1"]), torch.float64))
    close(found.pop("rates"), np.array(sorted(h["lr_per_group"])), "rates")
    for name, value in found.items():
        if name in arrays:
            close(value, arrays[name], name, double=double[name])


CHECKS = {"simsiam": {"loss*": check_loss, "train*": check_train}}
