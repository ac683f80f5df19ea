"""DeepCluster-v2: clustering of the memory, on one process and on several, and an epoch that follows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssl_zoo.augmentations.rng import RecordedDraw
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.deepcluster_v2 import DeepClusterV2
from ssl_zoo.optim.schedules import Progress
from tests.golden.compare import close
from tests.golden.harness import (
    Identity,
    Recorded,
    Values,
    batch_of,
    double_or_single,
    fill,
    linear_head,
    numpy_of,
    recipe,
    steps_of,
)
from tests.helpers import train_step

W = "projector.0.weight"


def method_of(h: Any, samples: int, in_dim: int, dim: int, banks: int, rows: int, dtype: torch.dtype) -> DeepClusterV2:
    momentum = h.get("momentum", 0.9)  # written in main_deepclusterv2.py
    values = {"lr": Recorded(tuple(h.get("lr", [0.0]))), "weight_decay": h.get("wd", 0.0), "momentum": momentum}
    frozen = {"prototypes": {"match": "^prototypes", "frozen_until": h.get("freeze_prototypes_niters", 0)}}
    info = image_info(samples=samples, classes=None, image_size=1, channels=1, batch_size=rows)
    iterations, temperature = h.get("kmeans_iters", 10), h.get("temperature", 0.1)
    optimizer = recipe(torch.optim.SGD, frozen, **values)
    head = linear_head(dim)
    method = DeepClusterV2(
        Identity(in_dim), optimizer, info, head, h["nmb_prototypes"], temperature, iterations, banks
    ).to(dtype)
    method.bind(rows)
    return method.train()


def cluster(method: DeepClusterV2, memory: np.ndarray, index: np.ndarray, starts: list[np.ndarray]) -> None:
    """Fill the banks with memory ``[banks, M, D]`` and cluster it from the recorded rows."""
    rows = torch.tensor(index)
    fill(method, {f"memory.banks.{i}.keys": _placed(method, i, rows, bank) for i, bank in enumerate(memory)})
    method.memory.seen[rows] = True
    place = rows.argsort().argsort()  # of a row of theirs among the samples that have one, in our order
    method.cluster(RecordedDraw({h: place[torch.tensor(start)] for h, start in enumerate(starts)}))


def _placed(method: DeepClusterV2, bank: int, rows: torch.Tensor, memory: np.ndarray) -> torch.Tensor:
    keys = method.memory.banks[bank].keys
    return keys.index_copy(0, rows, torch.tensor(memory).to(keys.dtype))


def replay_kmeans(h: Any, memory: np.ndarray, index: np.ndarray, starts: list[np.ndarray]) -> dict[str, np.ndarray]:
    banks, rows, dim = memory.shape
    method = method_of(h, h["dataset_size"], dim, dim, banks, rows, double_or_single(memory))
    cluster(method, memory, index, starts)
    centroids = {f"centroids_head{i}": p.weight for i, p in enumerate(method.prototypes)}
    return numpy_of({**centroids, "assignments": method.assignments})


def check_kmeans(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    ranks = range(h["world_size"])
    memory = np.concatenate([arrays[f"memory_rank{rank}"] for rank in ranks], axis=1)
    index = np.concatenate([arrays[f"memory_index_rank{rank}"] for rank in ranks])
    assert len(memory) == h["crops_for_assign"]
    starts = [arrays[f"perm_head{i}"] for i in range(len(h["nmb_prototypes"]))]  # of rank 0, whose rows come first
    outs = [replay_kmeans(h, memory, index, starts)]
    outs += pools(h["world_size"]).run(replay_kmeans, h, memory, index, starts) if h["world_size"] > 1 else []
    for out in outs:
        for name, value in out.items():
            close(value, arrays[name], name)


def check_epoch(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    memory, index = arrays["memory0"], arrays["memory_index0"]
    samples = arrays["assignments"].shape[1]
    heads = range(len(h["nmb_prototypes"]))
    method = method_of(
        h, samples, h["in_dim"], h["feat_dim"], len(memory), h["batch"], double_or_single(arrays["W0"])
    )
    fill(method, {W: arrays["W0"]})
    cluster(method, memory, index, [arrays[f"perm_head{i}"] for i in heads])
    close(method.assignments, arrays["assignments"], "assignments")
    for i, prototypes in enumerate(method.prototypes):
        close(prototypes.weight, arrays[f"C_head{i}_after_kmeans"], f"prototypes {i} after k-means")
    steps = steps_of(arrays, "x_step{}_crop0")
    method.progress = Progress(0, len(steps), len(steps))
    for t in steps:
        batch = batch_of([torch.tensor(arrays[f"x_step{t}_crop{v}"]) for v in range(sum(h["nmb_crops"]))])
        batch.index = torch.tensor(arrays[f"idx_step{t}"])
        close(train_step(method, batch)["loss"], arrays[f"loss_step{t}"], f"loss of step {t}")
        close(method.projector[0].weight, arrays[f"W_step{t}"], f"weight after step {t}")
        for i, prototypes in enumerate(method.prototypes):
            close(prototypes.weight, arrays[f"C_head{i}_step{t}"], f"prototypes {i} after step {t}")
    index = torch.tensor(arrays["memory_index_end"])
    read = torch.cat([torch.tensor(arrays[f"idx_step{t}"]) for t in steps])
    close(read, arrays["memory_index_end"], "samples in the order in which they were read")
    assert torch.equal(method.memory.seen.nonzero().flatten(), index.unique()), "samples that are clustered next"
    for i, bank in enumerate(method.memory.banks):
        close(bank.keys[index], arrays["memory_end"][i], f"memory of view {i}")


CHECKS = {"deepclusterv2": {"kmeans*": check_kmeans, "epoch*": check_epoch}}
