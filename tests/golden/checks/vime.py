"""VIME: corruption, both heads, and the consistency of its semi-supervised half."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.augmentations.table.ops import Corrupt, changed, corrupted
from ssl_zoo.backbones.table.mlp import mlp
from ssl_zoo.losses.tables import consistency_rows
from ssl_zoo.methods.vime import CHANGED, VIME
from tests.golden.compare import close
from tests.golden.harness import Values, batch_of, fill, no_recipe


def check_pretext(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x, mask, order = (torch.tensor(arrays[name]) for name in ("x", "mask", "permutation"))
    assert x.shape == (h["N"], h["features"])
    found = corrupted(x, x, mask.bool(), order)
    close(found, arrays["x_tilde"], "corrupted table")
    close(changed(x, found).long(), arrays["mask_target"], "target of the mask")
    # The operation draws a cell's row and whether it is masked; the file recorded what came of it.
    draw = RecordedDraw({"mask": torch.where(mask.bool(), 0.0, 1.0), "row": order})
    close(Corrupt(h["p_m"], "bernoulli", table=x)(x, draw), arrays["x_tilde"], "by the operation")
    close(draw.reports["changed"].long(), arrays["mask_target"], "reported by the operation")


def check_self_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    clean, noisy, target = (torch.tensor(arrays[name]) for name in ("x", "x_tilde", "mask_target"))
    inputs = clean.shape[1]
    backbone = mlp(inputs, hidden=[], out_features=-1)
    method = VIME(backbone, no_recipe(), inputs, [str(i) for i in range(inputs)], alpha=h["alpha"]).to(clean.dtype)
    layers = {"encoder": backbone.net[0], "mask_head": method.mask_head, "feature_head": method.feature_head}
    assert h["epsilon"] == 1e-7
    for name, layer in layers.items():
        fill(layer, {key: arrays[f"{name}.{key}"] for key in ("weight", "bias")})
    batch = batch_of([clean, noisy])
    batch.extra[CHANGED] = target.bool()
    out = method.training_loss(batch)
    close(out["mask"], arrays["bce"], "loss of the mask")
    close(out["values"], arrays["mse"], "loss of the values")
    close(out["loss"], arrays["loss"], "loss")
    out["loss"].backward()
    for name, layer in layers.items():
        close(layer.weight.grad, arrays[f"grad_{name}.weight"], f"gradient of {name}")
        close(layer.bias.grad, arrays[f"grad_{name}.bias"], f"gradient of {name}'s bias")


def check_consistency(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    logits = torch.tensor(arrays["logits"]).requires_grad_()
    assert logits.shape == (h["K"], h["B"], h["classes"])
    loss = consistency_rows(logits).mean()
    loss.backward()
    close(loss, arrays["loss"], "loss")
    close(logits.grad, arrays["grad_logits"], "gradient")


CHECKS = {
    "vime": {"pretext": check_pretext, "self_loss_*": check_self_loss, "semi_consistency": check_consistency}
}
