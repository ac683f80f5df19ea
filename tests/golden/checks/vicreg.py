"""VICReg: the three terms, and the gathered batch with gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ssl_zoo.losses.redundancy import covariance_penalty, variance_hinge
from ssl_zoo.methods.vicreg import VICReg
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, differentiate, double_or_single, fill, linear_head, no_recipe


def _weights(h: Any) -> tuple[float, float, float]:
    return h["sim_coeff"], h["std_coeff"], h["cov_coeff"]


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    x, y = (torch.tensor(arrays[name]) for name in "xy")
    out = differentiate(VICReg(Identity(h["dim"]), no_recipe(), Identity, *_weights(h)), [x, y])
    close(out["loss"], arrays["loss"], "loss")
    close(out["view0"], arrays["grad_x"], "gradient of view 1")
    close(out["view1"], arrays["grad_y"], "gradient of view 2")
    close(F.mse_loss(x, y), arrays["invariance"], "invariance")
    close((variance_hinge(x) + variance_hinge(y)) / 2, arrays["variance"], "variance")
    close(covariance_penalty(x) + covariance_penalty(y), arrays["covariance"], "covariance")


def replay(h: Any, weight: np.ndarray, views: list[np.ndarray]) -> dict[str, np.ndarray]:
    method = VICReg(Identity(h["in_dim"]), no_recipe(), linear_head(h["dim"]), *_weights(h))
    method.to(double_or_single(views[0]))
    fill(method, {"projector.0.weight": weight})
    return differentiate(method, [torch.tensor(view) for view in views])


def check_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    world, weight = h["world_size"], "projector.0.weight"
    views = [np.concatenate([arrays[f"{v}_rank{rank}"] for rank in range(world)]) for v in "xy"]
    for rank, out in enumerate(pools(world).run(replay, h, arrays["W"], views)):
        close(out["loss"], arrays[f"loss_rank{rank}"], f"loss of rank {rank}")
        close(out[f"local/{weight}"], arrays[f"gradW_rank{rank}"], f"gradient of rank {rank}")
        close(out["view0"], arrays[f"grad_x_rank{rank}"], f"gradient of the input of rank {rank}")
        close(out[f"mean/{weight}"], arrays["gradW_ddp_mean"], "gradient after DDP")
    one = replay(h, arrays["W"], views)
    close(one["loss"], arrays["loss_fullbatch"], "loss of one process")
    close(one[f"mean/{weight}"], arrays["gradW_fullbatch"], "gradient of one process")


CHECKS = {"vicreg": {"loss*": check_loss, "world*": check_world}}
