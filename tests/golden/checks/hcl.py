"""HCL: hard negatives of images, and of graphs."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.losses.graph_contrast import local_global
from ssl_zoo.methods.hcl import HCL
from tests.golden.checks.moco import DTYPES, exact_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, no_recipe


def check_images(document: Any, arrays: Values) -> None:
    """The estimator ``easy`` is ours without weights and without false negatives."""
    case = document["case"]
    h = document["hyperparameters"][case]
    beta, share = h["beta"], h["tau"]
    if h["est"] == "easy":
        beta, share = 0.0, 0.0
    for precision in precisions(arrays):
        method = HCL(Identity(h["D"]), no_recipe(), Identity, h["T"], beta, share)
        views = [torch.tensor(arrays[f"in/{case}/view{v}_raw"]).to(DTYPES[precision]) for v in (1, 2)]
        out = differentiate(method, views)
        for name, found in (("loss", "loss"), ("grad_view1_raw", "view0"), ("grad_view2_raw", "view1")):
            key = f"{precision}/{case}/{name}"
            close(out[found], arrays[key], key, exact_of(arrays, key))


def check_graphs(document: Any, arrays: Values) -> None:
    """``graph_JSD`` is InfoGraph's bound, ``graph_JSD_hard`` HCL's."""
    case, h = document["case"], document["hyperparameters"]["graph"]
    options = {"beta": h["beta"], "positive_share": h["tau_plus"]} if case.endswith("hard") else {}
    graph = torch.tensor(arrays["in/graph/batch"])
    for precision in precisions(arrays):
        names = ("local", "global")
        inputs = [torch.tensor(arrays[f"in/graph/{name}"]).to(DTYPES[precision]).requires_grad_() for name in names]
        loss = local_global(*inputs, graph, **options)
        loss.backward()
        for name, value in (("loss", loss), ("grad_local", inputs[0].grad), ("grad_global", inputs[1].grad)):
            key = f"{precision}/{case}/{name}"
            close(value, arrays[key], key, exact_of(arrays, key))


CHECKS = {"hcl": {"graph_*": check_graphs, "*": check_images}}
