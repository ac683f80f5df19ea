"""CLAE: the adversarial view, both terms, gradients, statistics of both sets of batch norms; three variants."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ssl_zoo.methods.clae import CLAE
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.heads import MLP
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of, fill, no_recipe, plain

PLACES = {"l1": "backbone.l1", "bn": "backbone.bn", "bn_adv": "adversarial.twins.0", "l2": "projector.0"}


class Toy(nn.Module):
    """The recording's network below ``l2``: flatten, linear, batch norm, ReLU."""

    def __init__(self, inputs: int, out_features: int) -> None:
        super().__init__()
        self.l1 = nn.Linear(inputs, out_features, bias=False)
        self.bn = nn.BatchNorm1d(out_features)
        self.out_features = out_features

    def forward(self, view: Tensor) -> Tensor:
        return self.bn(self.l1(view.flatten(1))).relu()


def ours(name: str) -> str:
    layer, _, leaf = name.partition(".")
    return f"{PLACES[layer]}.{leaf}"


def method_of(h: Any, variant: str, start: Values) -> CLAE:
    def head(width: int) -> MLP:
        return MLP(width, [], h["D"], last_bias=True)

    options = {"base": variant, "temperature": h["Ts" if variant == "simclr" else "Tp"], "epsilon": h["eps"]}
    options |= {"strength": h["alpha"], "adversarial_momentum": h["mom"], "repeat_anchor": variant == "plain"}
    out_features, inputs = start["init/param/l1.weight"].shape
    method = CLAE(Toy(inputs, out_features), no_recipe(), head, **options)
    fill(method, {ours(name.removeprefix("init/param/")): value for name, value in start.items()})
    return convert(method).train()  # type: ignore[return-value]


def run(method: CLAE, views: list[Tensor]) -> dict[str, Tensor]:
    """What the loss returns, differentiated, and the adversarial view."""
    attacked = []
    attack = method.attack

    def keep(view: Tensor) -> Tensor:
        attacked.append(attack(view))
        return attacked[-1]

    with mock.patch.object(method, "attack", keep):
        out = method.training_loss(batch_of(views))
    out["loss"].backward()
    return {**out, "attacked": attacked[0]}


def check(document: Any, arrays: Values) -> None:
    case, h = document["case"], document["hyperparameters"]
    for precision in precisions(arrays):
        method = method_of(h, case, plain(arrays, "init/param/")).to(DTYPES[precision])
        views = [torch.tensor(arrays[f"in/view{v}"]).to(DTYPES[precision]) for v in (1, 2)]
        out = run(method, views)
        found = {"x_adv": out["attacked"], "loss": out["loss"], "loss_clean": out["clean"]}
        found |= {"loss_adv": out["adversarial"]}
        for name in _named(arrays, precision, case, "grad/"):
            found[f"grad/{name}"] = method.get_parameter(ours(name)).grad
        for name in _named(arrays, precision, case, "buffer_after/"):
            found[f"buffer_after/{name}"] = method.get_buffer(ours(name))
        for name, value in found.items():
            key = f"{precision}/{case}/{name}"
            close(value, arrays[key], key, exact_of(arrays, key))


def _named(arrays: Values, precision: str, case: str, kind: str) -> list[str]:
    prefix = f"{precision}/{case}/{kind}"
    return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]


DIFFERS = {
    "clae/hyperparameters/lr": "no step of an optimizer is recorded",
    "clae/hyperparameters/m": "of InvaSpread's loss, which CLAE's authors leave at 1, and ours has no option for",
}
CHECKS = {"clae": {"*": check}}
