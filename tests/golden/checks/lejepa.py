"""LeJEPA: the test of Epps and Pulley, SIGReg on one and several processes, and both forms of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_zoo.losses.sigreg import epps_pulley, normal_knots, shadows
from ssl_zoo.methods.lejepa import LeJEPA
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, double_or_single, no_recipe, numpy_of


def check_test(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    t, normal, weights = normal_knots(h["n_points"], h["t_max"])
    close(t, arrays["t"], "knots")
    close(weights, arrays["weights"], "weights")
    x = torch.tensor(arrays["x"]).requires_grad_()
    t, normal, weights = (values.to(x.dtype) for values in (t, normal, weights))
    statistics = epps_pulley(shadows(x, torch.eye(x.shape[1]), t), normal, weights, len(x))
    close(statistics, arrays["stat"], "statistics")
    probe = (statistics * torch.arange(1, len(statistics) + 1)).sum()
    close(torch.autograd.grad(probe, x)[0], arrays["grad_x_of_probe"], "gradient")


def replay(views: list[np.ndarray], slices: np.ndarray, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Terms of the method on recorded projections, and the gradient of this rank's ``[V, B, D]``."""
    width, count = slices.shape
    method = LeJEPA(Identity(width), no_recipe(), Identity, slices=count, **options).to(double_or_single(views[0]))
    batch = batch_of(list(map(torch.tensor, views)), {"slices": {"directions": torch.tensor(slices)}})
    batch.views = [view.clone().requires_grad_() for view in batch.views]
    out = method.training_loss(batch)
    out["loss"].backward()
    return numpy_of({**out, "gradient": torch.stack([view.grad for view in batch.views])})


def options_of(h: Any, **more: Any) -> dict[str, Any]:
    names = {"n_points": "knots", "knots": "knots", "t_max": "last_knot", "lamb": "weight"}
    return {**{name: h[key] for key, name in names.items() if key in h}, **more}


def check_minimal(case: Any, arrays: Values) -> None:
    out = replay(list(arrays["proj"]), arrays["directions_raw"], options_of(case["hyperparameters"]))
    compare(out, arrays)


def check_global_centre(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    options = options_of(h, centre_views=h["global_views"], convex=False, pool_views=True)
    compare(replay(list(arrays["proj"]), arrays["directions"], options), arrays)


def compare(out: dict[str, np.ndarray], arrays: Values) -> None:
    for ours, theirs in (("loss", "loss"), ("sigreg", "sigreg"), ("invariance", "inv"), ("gradient", "grad_proj")):
        close(out[ours], arrays[theirs], theirs)


def check_sliced(case: Any, arrays: Values) -> None:
    """SIGReg alone: the loss of a single view with all the weight on it."""
    h = case["hyperparameters"]
    for call in range(h["calls"]):
        out = replay([arrays[f"x_{call}"]], arrays[f"directions_{call}"], options_of(h, weight=1.0))
        close(out["loss"], arrays[f"loss_{call}"], f"loss of call {call}")
        close(out["gradient"][0], arrays[f"grad_x_{call}"], f"gradient of call {call}")


def check_sliced_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    world = h["world_size"]
    views = [np.concatenate([arrays[f"x_rank{rank}"] for rank in range(world)])]
    options = options_of(h, weight=1.0)
    for rank, out in enumerate(pools(world).run(replay, views, arrays["directions"], options)):
        close(out["loss"], arrays[f"loss_rank{rank}"], f"loss of rank {rank}")
        close(out["gradient"][0], arrays[f"grad_x_rank{rank}"], f"gradient of rank {rank}")
    one = replay(views, arrays["directions"], options)
    close(one["loss"], arrays["loss_fullbatch"], "loss of one process")
    close(one["gradient"][0], arrays["grad_fullbatch"], "gradient of one process")


CHECKS = {
    "lejepa": {
        "epps_pulley*": check_test,
        "sliced_world*": check_sliced_world,
        "sliced*": check_sliced,
        "minimal*": check_minimal,
        "global_center*": check_global_centre,
    }
}
