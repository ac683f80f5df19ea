"""W-MSE: the method on recorded projections and permutations, and the contrastive baseline of its repository."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.losses.whitening import whiten
from ssl_zoo.methods.w_mse import WMSE
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, data_info, no_recipe


def check_method(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    views = [torch.tensor(arrays[f"view{v}"]).requires_grad_() for v in range(h["num_samples"])]
    orders = {t: torch.tensor(arrays[f"perm{t}"]) for t in range(h["w_iter"])}
    method = WMSE(
        Identity(h["dim"]),
        no_recipe(),
        data_info(h["batch"]),
        Identity,
        sub_batch=h["w_size"],
        rounds=h["w_iter"],
        shrinkage=h["w_eps"],
        euclidean=not h["norm"],
    )
    batch = batch_of(views, {"whitening": orders})
    batch.views = views
    loss = method.training_loss(batch)["loss"]
    loss.backward()
    close(loss, arrays["loss"], "loss")
    for v, view in enumerate(views):
        close(view.grad, arrays[f"grad_view{v}"], f"gradient of view {v}")
    first = whiten(views[0][orders[0][: h["w_size"]]], h["w_eps"])
    close(first, arrays["whitened_view0_first_subbatch"], "first sub-batch, whitened")


def check_baseline(case: Any, arrays: Values) -> None:
    """Half of SimCLR's code's value: the mean over both views, which ours is."""
    views = [torch.tensor(arrays[name]).requires_grad_() for name in ("x0", "x1")]
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in views)
    loss = nt_xent(a, b, a, b, 0, case["hyperparameters"]["tau"])
    loss.backward()
    close(loss, arrays["loss"], "loss")
    for v, view in enumerate(views):
        close(view.grad, arrays[f"grad_x{v}"], f"gradient of view {v}")


CHECKS = {"wmse": {"wmse*": check_method, "ntxent*": check_baseline}}
