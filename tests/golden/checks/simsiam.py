"""SimSiam: the loss, and whole training loops with and without a constant rate for the predictor."""

from __future__ import annotations

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
from tests.golden.harness import Values, batch_of, double_or_single, fill, plain, recipe, steps_of
from tests.helpers import train_step


def check_loss(case: Any, arrays: Values) -> None:
    p = [torch.tensor(arrays[name]).requires_grad_() for name in ("p1", "p2")]
    z = [torch.tensor(arrays[name]) for name in ("z1", "z2")]
    loss = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    loss.backward()
    close(loss, arrays["loss"], "loss")
    close(p[0].grad, arrays["grad_p1"], "gradient of prediction 1")
    close(p[1].grad, arrays["grad_p2"], "gradient of prediction 2")


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


def check_train(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    steps = steps_of(arrays, "x_step{}_view1")
    method = method_of(h, len(steps), double_or_single(arrays["x_step1_view1"]))
    method.bound.apply(method.progress)
    rates = [group["lr"] for group in method.bound.optimizer.param_groups]
    close(sorted(rates), np.array(sorted(h["lr_per_group"])), "rates")
    start = plain(arrays, "param0.")
    fill(method, {ours(name.removeprefix("param0.")): value for name, value in start.items()})
    for t in steps:
        heads = {"z": method.projector, "p": method.predictor}
        outputs: dict[str, list[Tensor]] = {"z": [], "p": []}
        hooks = [
            head.register_forward_hook(lambda _, __, out, seen=outputs[name]: seen.append(out))
            for name, head in heads.items()
        ]
        out = train_step(method, batch_of([torch.tensor(arrays[f"x_step{t}_view{v}"]) for v in (1, 2)]))
        for hook in hooks:
            hook.remove()
        close(out["loss"], arrays[f"loss_step{t}"], f"loss of step {t}")
        for name, values in outputs.items():
            for v, value in enumerate(values, start=1):
                if f"step{t}_{name}{v}" in arrays:
                    close(value, arrays[f"step{t}_{name}{v}"], f"{name}{v} of step {t}")
        state = method.state_dict()
        for kind, found in (("param", state), ("buffer", state), ("grad", out["gradients"])):
            for name, wanted in plain(arrays, f"{kind}{t}.").items():
                close(found[ours(name.removeprefix(f"{kind}{t}."))], wanted, name)


CHECKS = {"simsiam": {"loss*": check_loss, "train*": check_train}}
