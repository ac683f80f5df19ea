"""SupCon: the loss on features, with labels, without, with a mask of positives; all or one view as anchors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.losses.supervised import sup_con
from ssl_zoo.methods.supcon import SupCon
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, no_recipe


def _positives(h: Any, arrays: Values, case: str) -> Tensor:
    """Labels of the keys, or weights of all pairs."""
    if h["lab"] == "mask":
        return torch.tensor(arrays[f"in/{case}/mask"]).repeat(h["V"], h["V"])
    return _labels(h, arrays, case).repeat(h["V"])


def _labels(h: Any, arrays: Values, case: str) -> Tensor:
    return torch.tensor(arrays[f"in/{case}/labels"]) if f"in/{case}/labels" in arrays else torch.arange(h["B"])


def _loss(h: Any, unit: Tensor, positives: Tensor, chunk: int | None) -> Tensor:
    keys = unit.transpose(0, 1).flatten(0, 1)  # [V * B, D], all first views first
    anchors = keys if h["mode"] == "all" else keys[: h["B"]]
    return sup_con(anchors, keys, torch.arange(len(anchors)), positives, h["T"], h["bT"], chunk)


def check(document: Any, arrays: Values) -> None:
    case = document["case"]
    h, positives = document["hyperparameters"][case], _positives(document["hyperparameters"][case], arrays, case)
    for precision in precisions(arrays):
        raw = torch.tensor(arrays[f"in/{case}/features_raw"]).to(DTYPES[precision]).requires_grad_()
        unit = F.normalize(raw, dim=2)
        for chunk in (None, 3):
            loss = _loss(h, unit, positives, chunk)
            of_unit, of_raw = torch.autograd.grad(loss, [unit, raw], retain_graph=True)
            found = {"loss": loss, "grad_features_normalised": of_unit, "grad_features_raw": of_raw}
            _compare(arrays, precision, case, found)
        if positives.dim() == 1:
            _compare(arrays, precision, case, _of_method(h, arrays, case, raw.detach()))


def _compare(arrays: Values, precision: str, case: str, found: dict[str, Any]) -> None:
    for name, value in found.items():
        key = f"{precision}/{case}/{name}"
        close(value, arrays[key], key, exact_of(arrays, key))


def _of_method(h: Any, arrays: Values, case: str, raw: Tensor) -> dict[str, Tensor]:
    """Without labels the method is told -1."""
    method = SupCon(Identity(h["D"]), no_recipe(), Identity, h["T"], h["bT"], h["mode"])
    batch = batch_of(raw.unbind(1))
    batch.views = [view.clone().requires_grad_() for view in batch.views]
    batch.label = _labels(h, arrays, case) if h["lab"] is not None else torch.full((h["B"],), -1)
    loss = method.training_loss(batch)["loss"]
    loss.backward()
    return {"loss": loss, "grad_features_raw": torch.stack([view.grad for view in batch.views], 1)}


CHECKS = {"supcon": {"*": check}}
