"""LoCo and Greedy InfoMax: losses of the units, and gradients of every stage and head."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.loco import LoCo
from ssl_zoo.modules.heads import MLP
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of, fill, no_recipe, plain


class Stage(nn.Linear):
    """``tanh(W h + b)`` on the channels of ``[B, C, 1, 1]``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).tanh()[:, :, None, None]


class Chain(nn.Module):
    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.net = nn.ModuleList(Stage(a, b) for a, b in zip(dims, dims[1:], strict=False))
        self.out_features = dims[-1]

    def stages(self) -> list[nn.Module]:
        return list(self.net)


def ours(name: str) -> str:
    """``stage1.weight`` and ``loco.head1.w2`` in our method."""
    stage = re.fullmatch(r"stage(\d+)\.(\w+)", name)
    if stage:
        return f"backbone.net.{int(stage[1]) - 1}.{stage[2]}"
    head = re.fullmatch(r"\w+\.head(\d+)\.([wb])(\d)", name)
    assert head, name
    return f"projectors.{int(head[1]) - 1}.{2 * int(head[3]) - 2}.{'weight' if head[2] == 'w' else 'bias'}"


def check(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"], document["case"]
    units = h[f"units_{case}"]
    start = {name.removeprefix("init/"): array for name, array in plain(arrays, "init/stage", f"init/{case}.").items()}
    for precision in ("f64", "f32"):
        results = plain(arrays, f"{precision}/{case}/")
        dtype = torch.float64 if precision == "f64" else torch.float32
        found = replay(h, len(units[0]) - 1, start, [arrays["in/view1"], arrays["in/view2"]], dtype) if results else {}
        for key, wanted in results.items():
            close(found[key.removeprefix(f"{precision}/{case}/")], wanted, key)


def replay(
    h: Any, overlap: int, start: dict[str, np.ndarray], views: list[np.ndarray], dtype: torch.dtype
) -> dict[str, Any]:
    info = image_info(h["B"], None, image_size=1, channels=h["dims"][0], batch_size=h["B"])
    head = partial(MLP, hidden=[h["hid"]], out_features=h["D"], norm="none", last_bias=True)
    method = LoCo(Chain(h["dims"]), no_recipe(), info, head, overlap, h["T"]).to(dtype)
    fill(method, {ours(name): array for name, array in start.items()})
    out = method.training_loss(batch_of([torch.tensor(view).to(dtype)[:, :, None, None] for view in views]))
    out["loss"].backward()
    gradients = {name: p.grad for name, p in method.named_parameters()}
    units = [value for name, value in out.items() if name.startswith("unit")]
    return {
        "loss": out["loss"], "unit_losses": torch.stack(units),
        **{f"grad/{name}": gradients[ours(name)] for name in start},
    }


CHECKS = {"loco": {"loco": check, "gim": check}}
