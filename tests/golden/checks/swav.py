"""SwAV: Sinkhorn-Knopp, and whole training loops with and without queue, freezing, LARC and a second process."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from ssl_zoo.distributed import gather, own_rows
from ssl_zoo.losses.clustering import sinkhorn
from ssl_zoo.methods.swav import SwAV
from ssl_zoo.optim.lars import LARC
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import (
    Identity,
    Recorded,
    Values,
    batch_of,
    data_info,
    double_or_single,
    fill,
    linear_head,
    numpy_of,
    recipe,
    steps_of,
)
from tests.helpers import train_step

W, C = "projector.0.weight", "prototypes.weight"


def replay_sinkhorn(scores: list[np.ndarray], h: Any) -> np.ndarray:
    local = own_rows(torch.tensor(np.concatenate(scores)))
    return own_rows(sinkhorn(gather(local), h["epsilon"], h["iterations"])).numpy()


def check_sinkhorn(case: Any, arrays: Values) -> None:
    close(replay_sinkhorn([arrays["scores"]], case["hyperparameters"]), arrays["q"], "assignments")


def check_sinkhorn_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    scores = [arrays[f"scores_rank{rank}"] for rank in range(h["world_size"])]
    wanted = [arrays[f"q_rank{rank}"] for rank in range(h["world_size"])]
    for rank, q in enumerate(pools(h["world_size"]).run(replay_sinkhorn, scores, h)):
        close(q, wanted[rank], f"assignments of rank {rank}")
    close(replay_sinkhorn(scores, h), np.concatenate(wanted), "assignments of one process")


def method_of(h: Any, start: dict[str, np.ndarray], rows: int) -> SwAV:
    momentum = h.get("momentum", 0.9)  # written in main_swav.py
    values = {"lr": Recorded(tuple(h["lr"])), "weight_decay": h["wd"], "momentum": momentum}
    larc = partial(LARC, trust=h["larc_trust"])
    optimizer: Any = larc if h["larc"] else torch.optim.SGD
    frozen = {"prototypes": {"match": "^prototypes", "frozen_until": h["freeze_prototypes_niters"]}}
    method = SwAV(
        Identity(h["in_dim"]),
        recipe(optimizer, frozen, **values),
        data_info(rows),
        linear_head(h["feat_dim"]),
        h["prototypes"],
        h["temperature"],
        h["epsilon"],
        h["sinkhorn_iterations"],
        h["queue_length"],
        queue_start=0,
    ).to(double_or_single(start["W0"]))
    fill(method, {W: start["W0"], C: start["C0"]})
    method.bind(rows)
    return method.train()


def replay(h: Any, start: dict[str, np.ndarray], crops: list[list[np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Losses, gradients as the optimizer uses them, and states after each step."""
    rows = len(crops[0][0])
    method = method_of(h, start, rows)
    method.progress = Progress(0, len(crops), len(crops))
    outs = []
    for views in crops:
        before = momenta(method)
        out = train_step(method, batch_of([torch.tensor(view) for view in views]))
        found = {"loss": out["loss"], "W": method.projector[0].weight, "C": method.prototypes.weight}
        used = {name: moved(method, before, name) for name in out["gradients"]} if h["larc"] else out["gradients"]
        found |= {f"grad{short}": used[name] for short, name in (("W", W), ("C", C)) if name in used}
        if method.queues:
            found["queue"] = torch.stack([newest_first(queue, rows) for queue in method.queues])
        outs.append(numpy_of(found))
    return outs


def momenta(method: SwAV) -> dict[str, torch.Tensor]:
    state = method.bound.optimizer.state
    return {name: state[p]["momentum_buffer"].clone() for name, p in method.named_parameters() if p in state}


def moved(method: SwAV, before: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Apex rescales gradients in place, and the recording read them afterwards: what LARC added to the buffer."""
    momentum = method.bound.optimizer.param_groups[0]["momentum"]
    return momenta(method)[name] - momentum * before.get(name, 0.0)


def newest_first(queue: Any, rows: int) -> torch.Tensor:
    """The authors' layout: the latest batch in front, and zeros where nothing was written yet."""
    blocks = queue.keys.split(rows)
    written = queue.pushed // rows
    order = [blocks[i % len(blocks)] for i in range(written - 1, written - 1 - len(blocks), -1)]
    return torch.cat([block if i < written else torch.zeros_like(block) for i, block in enumerate(order)])


def compare(out: dict[str, np.ndarray], arrays: Values, t: int) -> None:
    for name in ("W", "C", "gradW", "gradC"):
        key = f"{name}_step{t}"
        assert (name in out) == (key in arrays), f"{key}: only one side has a gradient (frozen prototypes have none)"
        if name in out:
            close(out[name], arrays[key], key)


def check_train(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    steps = steps_of(arrays, "x_step{}_crop0")
    crops = [[arrays[f"x_step{t}_crop{v}"] for v in range(sum(h["nmb_crops"]))] for t in steps]
    for t, out in enumerate(replay(h, {name: arrays[name] for name in ("W0", "C0")}, crops), start=1):
        close(out["loss"], arrays[f"loss_step{t}"], f"loss of step {t}")
        compare(out, arrays, t)
        if h["queue_length"]:
            close(out["queue"], arrays[f"queue_step{t}"], f"queue after step {t}")


def check_train_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    ranks = range(h["world_size"])
    steps = steps_of(arrays, "x_rank0_step{}_crop0")
    views = range(sum(h["nmb_crops"]))
    crops = [[np.concatenate([arrays[f"x_rank{r}_step{t}_crop{v}"] for r in ranks]) for v in views] for t in steps]
    start = {name: arrays[name] for name in ("W0", "C0")}
    results = pools(h["world_size"]).run(replay, h, start, crops)
    one = replay(h, start, crops)
    for t in steps:
        losses = [arrays[f"loss_rank{rank}_step{t}"] for rank in ranks]
        for rank in ranks:
            close(results[rank][t - 1]["loss"], losses[rank], f"loss of rank {rank}, step {t}")
        close(one[t - 1]["loss"], np.mean(losses), f"loss of one process, step {t}")
        for out in [*(result[t - 1] for result in results), one[t - 1]]:
            compare(out, arrays, t)
            if h["queue_length"]:
                queue = joined([arrays[f"queue_rank{rank}_step{t}"] for rank in ranks], h)
                close(out["queue"], queue, f"queue after step {t}")


def joined(queues: list[np.ndarray], h: Any) -> np.ndarray:
    """The ranks' queues ``[2, length, D]`` as the one that our ranks share: batch by batch, ranks in order."""
    blocks = [queue.reshape(len(queue), -1, h["batch_per_rank"], queue.shape[-1]) for queue in queues]
    return np.concatenate(blocks, axis=2).reshape(len(queues[0]), -1, queues[0].shape[-1])


CHECKS = {
    "swav": {
        "sinkhorn_world*": check_sinkhorn_world,
        "sinkhorn*": check_sinkhorn,
        "train_world*": check_train_world,
        "train*": check_train,
    }
}
