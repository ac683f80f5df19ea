"""Barlow Twins: the loss, and what a reduction outside autograd does to its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_zoo.losses.redundancy import cross_correlation
from ssl_zoo.methods.barlow_twins import BarlowTwins
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, double_or_single, fill, linear_head, no_recipe


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    views = [torch.tensor(arrays[name]) for name in ("z1", "z2")]
    out = differentiate(BarlowTwins(Identity(h["dim"]), no_recipe(), Identity, h["lambd"]), views)
    close(out["loss"], arrays["loss"], "loss")
    close(out["view0"], arrays["grad_z1"], "gradient of view 1")
    close(out["view1"], arrays["grad_z2"], "gradient of view 2")
    close(cross_correlation(*views), arrays["c"], "cross-correlation")


def replay(
    h: Any, weight: np.ndarray, views: list[np.ndarray], group: int | None, authors: int | None
) -> dict[str, Any]:
    options = {"authors_gradient": authors, "norm_group": group}
    method = BarlowTwins(Identity(h["in_dim"]), no_recipe(), linear_head(h["dim"]), h["lambd"], **options)
    method.to(double_or_single(views[0]))
    # The recording's linear layer held its weight in float32 before it was cast.
    fill(method, {"projector.0.weight": weight.astype(np.float32)})
    return differentiate(method, [torch.tensor(view) for view in views])


def check_world(case: Any, arrays: Values, pools: Any, local_norm: bool = False) -> None:
    h = case["hyperparameters"]
    world, weight = h["world_size"], "projector.0.weight"
    group = h["batch_per_rank"] if local_norm else None
    views = [np.concatenate([arrays[f"x{v}_rank{rank}"] for rank in range(world)]) for v in (1, 2)]
    for rank, out in enumerate(pools(world).run(replay, h, arrays["W"], views, group, world)):
        close(out["loss"], arrays[f"loss_rank{rank}"], f"loss of rank {rank}")
        close(out[f"local/{weight}"], arrays[f"gradW_rank{rank}"], f"gradient of rank {rank}")
        close(out["view0"], arrays[f"grad_x1_rank{rank}"], f"gradient of the input of rank {rank}")
        close(out[f"mean/{weight}"], arrays["gradW_ddp_mean"], "gradient after DDP")
    one = replay(h, arrays["W"], views, None, 1)
    close(one["loss"], arrays["loss_fullbatch"], "loss of one process")
    close(one[f"mean/{weight}"], arrays["gradW_fullbatch"], "gradient of one process")
    # Without the authors' 1/W, and with the groups kept, any number of processes gives one process' gradient.
    same = replay(h, arrays["W"], views, group, None)
    close(same["loss"], arrays["loss_rank0"], "loss of one process with the same groups")
    close(same[f"mean/{weight}"] / world, arrays["gradW_ddp_mean"], "gradient of one process with the same groups")
    for out in pools(world).run(replay, h, arrays["W"], views, group, None):
        close(out[f"mean/{weight}"] / world, arrays["gradW_ddp_mean"], "gradient after DDP, not divided")


def check_world_local_norm(case: Any, arrays: Values, pools: Any) -> None:
    check_world(case, arrays, pools, local_norm=True)


CHECKS = {
    "barlowtwins": {"loss*": check_loss, "world*_syncbn*": check_world, "world*_localbn*": check_world_local_norm},
}
