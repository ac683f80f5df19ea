"""SimCLR: NT-Xent on one and several replicas, and the projection head with its fine-tuning taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.contrastive import nt_xent
from ssl_zoo.methods.finetune import FineTune
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.modules.heads import MLP
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, fill, no_recipe

SELECTOR = "finetune_input_selector"


def replay(stacked: list[np.ndarray], temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Loss and local gradient ``[2B, D]`` of the method on the recorded projections of all replicas."""
    halves = [torch.tensor(array).chunk(2) for array in stacked]
    views = [torch.cat(parts) for parts in zip(*halves, strict=True)]
    method = SimCLR(Identity(views[0].shape[1]), no_recipe(), Identity, temperature, sum_directions=True)
    out = differentiate(method, views)
    return out["loss"], np.concatenate([out["view0"], out["view1"]])


def check_nt_xent(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    hidden = torch.tensor(arrays["hidden"])
    unit = F.normalize(hidden, dim=1) if h["hidden_norm"] else hidden
    a, b = unit.chunk(2)
    close(a @ b.T / h["temperature"], arrays["logits_ab"], "logits")
    if h["hidden_norm"]:
        loss, gradient = replay([arrays["hidden"]], h["temperature"])
        close(loss, arrays["loss"], "loss")
        close(gradient, arrays["grad_hidden"], "gradient")
    for chunk in (1, 3, len(hidden)):  # the method always normalises; the loss does not mind, nor how it is chunked
        x = hidden.clone().requires_grad_()
        a, b = (F.normalize(x, dim=1) if h["hidden_norm"] else x).chunk(2)
        value = 2 * nt_xent(a, b, a, b, 0, h["temperature"], chunk)
        close(value, arrays["loss"], f"loss by chunks of {chunk}")
        close(torch.autograd.grad(value, x)[0], arrays["grad_hidden"], f"gradient by chunks of {chunk}")


def check_nt_xent_replicas(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    world = h["world_size"]
    stacked = [arrays[f"hidden_rank{rank}"] for rank in range(world)]
    assert [len(rows) for rows in stacked] == [2 * h["N_per_replica"]] * world
    for rank, (loss, gradient) in enumerate(pools(world).run(replay, stacked, h["temperature"])):
        close(loss, arrays[f"loss_rank{rank}"], f"loss of rank {rank}")
        # The authors differentiate loss / replicas and sum over replicas; we sum over ranks and DDP divides.
        close(gradient / world, arrays[f"grad_hidden_rank{rank}"], f"gradient of rank {rank}")
    loss, gradient = replay(stacked, h["temperature"])
    close(loss, arrays["loss_fullbatch_single_device"], "loss of one process")
    close(gradient, arrays["grad_fullbatch_single_device"], "gradient of one process")


def check_projection_head(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    layers = h["num_proj_layers"]
    head = MLP(h["in_dim"], [-1] * (layers - 1), h["proj_out_dim"], bias=False, last_norm="batch_no_offset")
    for i in range(layers):
        values = {"0.weight": arrays[f"layer{i}_kernel"].T, "1.weight": arrays[f"layer{i}_bn_gamma"]}
        if f"layer{i}_bn_beta" in arrays:
            values["1.bias"] = arrays[f"layer{i}_bn_beta"]
        fill(head[3 * i : 3 * i + 2], values)
    x = torch.tensor(arrays["x"]).requires_grad_()
    out = head(x)
    probe = (torch.arange(1, len(out) + 1)[:, None] * out.square()).sum()
    probe.backward()
    close(out, arrays["out"], "output")
    close(probe, arrays["scalar_probe"], "probe")
    close(x.grad, arrays["grad_x_of_probe"], "gradient")
    keras = (len(x) - 1) / len(x)  # Keras keeps the biased variance, torch the unbiased one
    for i in range(layers):
        norm = head[3 * i + 1]
        old = 1 - norm.momentum  # of the initial variance, 1
        norm.running_var.copy_(old + (norm.running_var - old) * keras)
        close(norm.running_mean, arrays[f"layer{i}_moving_mean_after1"], f"running mean {i}")
        close(norm.running_var, arrays[f"layer{i}_moving_var_after1"], f"running variance {i}")
    head.eval()
    for name in arrays:
        if name.startswith(SELECTOR):
            kept = FineTune(
                Identity(h["in_dim"]), no_recipe(), image_info(1, 2, 1, 1, 1), lambda _: head,
                int(name[len(SELECTOR) :]),
            )
            close(kept.eval().classifier[:-1](x), arrays[name], f"input of fine-tuning {name}")


CHECKS = {
    "simclr": {
        "nt_xent_*replicas*": check_nt_xent_replicas,
        "nt_xent*": check_nt_xent,
        "proj_head*": check_projection_head,
    }
}
