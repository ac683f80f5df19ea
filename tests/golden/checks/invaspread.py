"""InvaSpread: the loss and its gradients, which do not reach the second factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ssl_zoo.losses.spread import instance_spread
from ssl_zoo.methods.invaspread import InvaSpread
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, no_recipe


def check(document: Any, arrays: Values) -> None:
    case = document["case"]
    h = document["hyperparameters"][case]
    for precision in precisions(arrays):
        raw = torch.tensor(arrays[f"in/{case}/features_raw"]).to(DTYPES[precision])
        z = F.normalize(raw, dim=1).requires_grad_()
        row = torch.arange(len(z))
        loss = instance_spread(z, z.detach(), row, row.roll(h["B"]), h["T"], h["m"])
        loss.backward()
        out = differentiate(InvaSpread(Identity(h["D"]), no_recipe(), Identity, h["T"], h["m"]), raw.chunk(2))
        close(out["loss"], loss.detach().numpy(), "loss of the method")
        found = {"loss": loss, "grad_features_normalised": z.grad}
        found["grad_features_raw"] = np.concatenate([out["view0"], out["view1"]])
        for name, value in found.items():
            key = f"{precision}/{case}/{name}"
            close(value, arrays[key], key, exact_of(arrays, key))


CHECKS = {"invaspread": {"*": check}}
