"""BYOL: the loss, and whole update steps (both networks, online classifier, LARS, teacher) on one or more devices."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.losses.regression import cosine_regression
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.lars import LARS
from ssl_zoo.optim.schedules import Cosine, Progress, WarmupCosine, value
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of, fill, numpy_of, plain, recipe, steps_of
from tests.helpers import train_step

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # inside the authors' network; our views come normalised
PARTS = {"tiny_encoder": "backbone", "projector": "projector", "predictor": "predictor", "classifier": "classifier"}
LAYERS = {"lin": "lin", "batchnorm": "norm", "linear": "0", "batch_norm": "1", "linear_1": "3"}  # haiku's: ours
LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}


def check_loss(case: Any, arrays: Values) -> None:
    p = [torch.tensor(arrays[f"prediction_view{v}"]).requires_grad_() for v in (1, 2)]
    t = [torch.tensor(arrays[f"target_projection_view{v}"]) for v in (1, 2)]
    loss = cosine_regression(p[0], t[1]) + cosine_regression(p[1], t[0])
    loss.backward()
    close(loss, arrays["loss"], "loss")
    rows = [cosine_regression(p[0][i : i + 1], t[1][i : i + 1]) for i in range(len(p[0]))]
    close(torch.stack(rows), arrays["per_sample_direction1"], "loss of each row")
    for v in (1, 2):
        close(p[v - 1].grad, arrays[f"grad_prediction_view{v}"], f"gradient of prediction {v}")
        assert not arrays[f"grad_target_projection_view{v}"].any()  # the teacher runs without gradient


class Encoder(nn.Module):
    """The recording's: flatten, linear without bias, batch norm, ReLU."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.BatchNorm1d(out_features)
        self.out_features = out_features

    def forward(self, view: Tensor) -> Tensor:
        return self.norm(self.lin(view.flatten(1))).relu()


class WithClassifier(BYOL):
    """With the authors' online classifier on detached features, and their average of what the teacher never uses."""

    def __init__(self, *args: Any, classes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.classifier = nn.Linear(self.backbone.out_features, classes)
        self.unused = EMA(self.online_only())
        self.losses: dict[str, Tensor] = {}

    def online_only(self) -> nn.Module:
        return nn.ModuleDict({"predictor": self.predictor, "classifier": self.classifier})

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        out = super().training_loss(batch)
        probe = F.cross_entropy(self.classifier(out["features"].detach()), batch.label)
        self.losses = {"repr_loss": out["loss"], "classif_loss": probe, "loss": out["loss"] + probe}
        return {**out, "loss": self.losses["loss"]}

    def after_step(self) -> None:
        super().after_step()
        self.unused.update(self.online_only(), value(self.momentum, self.progress))


def ours(name: str) -> str:
    """Haiku's ``<part>.<layer>.<leaf>`` as the name in our method; the classifier has no layers."""
    part, *layer, leaf = name.split(".")
    return ".".join([PARTS[part], *(LAYERS[x] for x in layer), LEAVES[leaf]])


def teachers(name: str) -> str:
    part, rest = ours(name).split(".", 1)
    places = {"backbone": "teacher.net.0", "projector": "teacher.net.1"}
    return f"{places.get(part, f'unused.net.{part}')}.{rest}"


def shaped(name: str, array: np.ndarray) -> np.ndarray:
    """Haiku's ``[in, out]`` weights transposed, and its ``[1, C]`` norms flat."""
    return array.T if name.endswith(".w") else array.reshape(-1)


def method_of(h: Any, start: dict[str, np.ndarray]) -> WithClassifier:
    head = partial(MLP, out_features=h["projector_out"], last_bias=False)
    method = WithClassifier(
        Encoder(*start["online0.tiny_encoder.lin.w"].shape),
        recipe(
            LARS,
            {"excluded": {"ndim_at_most": 1, "weight_decay": 0.0, "adapt": False}},
            lr_scale="linear256",
            lr=WarmupCosine(h["base_learning_rate"], warmup_steps=h["warmup_steps"]),
            **{"momentum": h["momentum"], "weight_decay": h["weight_decay"], "trust": h["eta"]},
        ),
        projector=partial(head, hidden=[h["projector_hidden"]]),
        predictor=partial(head, hidden=[h["predictor_hidden"]]),
        momentum=Cosine(h["base_target_ema"], 1.0),
        redraw_teacher=False,  # both are filled below
        classes=h["num_classes"],
    )
    for side, name_of in (("online0.", ours), ("target0.", teachers)):
        names = [name.removeprefix(side) for name in start if name.startswith(side)]
        fill(method, {name_of(name): shaped(name, start[side + name]) for name in names})
    return method


def replay(h: Any, start: dict[str, np.ndarray], steps: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Losses, rates and the whole state after each step, under our names."""
    method = method_of(h, start).train()
    convert(method)
    rows = h["devices"] * h["batch_per_device"]
    method.bind(rows)
    method.progress = Progress(h["first_global_step"], h["max_steps"], h["max_steps"])
    outs = []
    for step in steps:
        views = [(torch.tensor(step[name]) - torch.tensor(MEAN)) / torch.tensor(STD) for name in ("view1", "view2")]
        batch = batch_of([*views, torch.tensor(step["labels"]).long()])
        batch.label = batch.views.pop()
        tau = value(method.momentum, method.progress)
        out = {"tau": torch.tensor(tau), "learning_rate": torch.tensor(method.bound.lr(method.progress))}
        train_step(method, batch)
        out |= {name: mean_over_ranks(loss.detach()) for name, loss in method.losses.items()}
        outs.append(numpy_of({**out, **method.state_dict()}))
    return outs


def compare(h: Any, arrays: Values, outs: list[dict[str, np.ndarray]]) -> None:
    rows = h["devices"] * h["batch_per_device"]
    for t, out in enumerate(outs, start=1):
        for name in ("loss", "repr_loss", "classif_loss", "tau", "learning_rate"):
            close(out[name], arrays[f"step{t}.{name}"], f"{name} of step {t}")
        for side, name_of in (("online", ours), ("target", teachers)):
            prefix = f"{side}{t}."
            for name, wanted in plain(arrays, prefix).items():
                name = name.removeprefix(prefix)
                close(out[name_of(name)], shaped(name, wanted), f"{prefix}{name}")
            compare_norms(arrays, out, f"{side}_bnstate{t}.", name_of, rows)


def compare_norms(arrays: Values, out: dict[str, np.ndarray], prefix: str, name_of: Any, rows: int) -> None:
    """Haiku averages from 0 and divides by what is missing from 1; variances are biased."""
    for key in (key for key in arrays if key.startswith(prefix) and key.endswith("_ema.hidden")):
        part, layer, kind = re.fullmatch(r"(\w+)\.(\w+)\.(mean|var)_ema\.hidden", key.removeprefix(prefix)).groups()  # type: ignore[union-attr]
        stem = name_of(f"{part}.{layer}.w").removesuffix("weight")
        if f"{stem}running_mean" not in out or stem.startswith("unused"):
            continue  # the teacher has no predictor: see tests/golden/differs.py
        count = key.replace("hidden", "counter")
        close(out[f"{stem}num_batches_tracked"], arrays[count], count)
        missing = (1 - nn.BatchNorm1d(1).momentum) ** int(arrays[count])
        found = out[f"{stem}running_{kind}"]
        if kind == "var":
            found = (found - missing) * (rows - 1) / rows
        close(found, arrays[key].reshape(-1), key)
        average = key.replace("hidden", "average")
        close(found / (1 - missing), arrays[average].reshape(-1), average)


def check_update(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    start = plain(arrays, "online0.", "target0.")
    names = ("view1", "view2", "labels")
    steps = [
        {name: np.concatenate(arrays[f"step{t}.{name}"]) for name in names} for t in steps_of(arrays, "step{}.view1")
    ]
    compare(h, arrays, replay(h, start, steps))
    if h["devices"] > 1:
        for outs in pools(h["devices"]).run(replay, h, start, steps):
            compare(h, arrays, outs)


CHECKS = {"byol": {"loss*": check_loss, "update*": check_update}}
