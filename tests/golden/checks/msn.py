"""MSN: the three terms of the loss, targets and gradients, on one and several processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.backbones.base import Tokens
from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.methods.msn import MSN
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, double_or_single, fill, no_recipe, numpy_of

ENTROPY = 0.5  # weight of the entropy in the recorded total, see its description


class Vectors(Identity):
    """Recorded embeddings in place of a transformer: the view is the class token."""

    def require_tokens(self, by: str, dropping: bool = False) -> None:
        pass

    def forward_tokens(self, view: Tensor, keep: Tensor | None = None) -> Tokens:
        return Tokens(view, view[:, None], (1, 1))


def replay(
    h: Any, prototypes: np.ndarray, target: np.ndarray, anchors: list[np.ndarray], **options: Any
) -> dict[str, np.ndarray]:
    """Terms of the method, targets, and gradients of this rank's anchors and of the prototypes."""
    method = MSN(
        Vectors(target.shape[1]),
        no_recipe(),
        Identity,
        prototypes=len(prototypes),
        temperature=h["tau"],
        target_temperature=h.get("target_sharpen_T", h.get("T")),
        patch_drop=0.0,
        iterations=3 * h["use_sinkhorn"],
        entropy=ENTROPY * h.get("use_entropy", False),
        label_smoothing=h.get("label_smoothing", 0.0),
        **options,
    ).to(double_or_single(target))
    fill(method, {"prototypes.weight": prototypes})
    views = [torch.tensor(view) for view in (target, *anchors)]
    batch = batch_of(views, {"patch_drop": {"": torch.tensor([0])}})
    batch.views = [batch.views[0], *(view.clone().requires_grad_() for view in batch.views[1:])]
    out = method.training_loss(batch)
    out["loss"].backward()
    gradient = method.prototypes.weight.grad
    return numpy_of({
        **out,
        "targets": method.targets(batch.views[0]).repeat(len(anchors), 1),
        "anchors": torch.cat([view.grad for view in batch.views[1:]]),
        "prototypes": gradient,
        "prototypes_ddp": mean_over_ranks(gradient),
    })


def logs_of(targets: np.ndarray) -> np.ndarray:
    """What the authors print: prototypes that win a row, mean of the largest and of the smallest probability."""
    return np.array([len(set(targets.argmax(1))), targets.max(1).mean(), targets.min(1).mean()], dtype=targets.dtype)


def check_loss(case: Any, arrays: Values) -> None:
    h = case["hyperparameters"]
    smoothing, k = h["label_smoothing"], h["prototypes"]
    labels = (1 - smoothing) * np.eye(k) + smoothing / k
    close(labels.astype(arrays["proto_labels"].dtype), arrays["proto_labels"], "labels of prototypes")
    anchors = np.split(arrays["anchors"], h["num_views"])
    out = replay(h, arrays["prototypes"], arrays["targets_in"], anchors)
    out["sloss"] = out["entropy"] if h["use_entropy"] else np.zeros(())
    names = {"targets": "target_probs", "cross_entropy": "loss", "me_max": "rloss", "sloss": "sloss", "loss": "total",
             "anchors": "grad_anchors", "prototypes": "grad_prototypes"}
    for ours, theirs in names.items():
        close(out[ours], arrays[theirs], theirs)
    close(logs_of(out["targets"]), arrays["log_np_max_min"], "what is logged")


def summed(h: Any, *values: Any) -> dict[str, np.ndarray]:
    return replay(h, *values, sum_prototype_gradients=h["world_size"])


def check_world(case: Any, arrays: Values, pools: Any) -> None:
    h = case["hyperparameters"]
    world, views = h["world_size"], h["num_views"]
    parts = [np.split(arrays[f"anchors_rank{rank}"], views) for rank in range(world)]
    anchors = [np.concatenate([part[v] for part in parts]) for v in range(views)]
    target = np.concatenate([arrays[f"targets_rank{rank}"] for rank in range(world)])
    values = (h, arrays["prototypes"], target, anchors)
    for rank, out in enumerate(pools(world).run(replay, *values)):
        names = {"targets": "target_probs", "cross_entropy": "loss", "me_max": "rloss", "anchors": "grad_anchors",
                 "prototypes": "grad_prototypes_local"}
        for ours, theirs in names.items():
            close(out[ours], arrays[f"{theirs}_rank{rank}"], f"{theirs} of rank {rank}")
    for out in pools(world).run(summed, *values):
        close(out["prototypes_ddp"], arrays["grad_prototypes_sum"], "gradient of the prototypes, summed over ranks")
    one = replay(*values)
    close(one["cross_entropy"], np.mean([arrays[f"loss_rank{rank}"] for rank in range(world)]), "loss, one process")
    close(one["me_max"], arrays["rloss_rank0"], "me-max, one process")
    close(one["prototypes"] * world, arrays["grad_prototypes_sum"], "gradient of the prototypes, one process")
    gradients = [np.split(arrays[f"grad_anchors_rank{rank}"], views) for rank in range(world)]
    joined = np.concatenate([part[v] for v in range(views) for part in gradients])
    close(one["anchors"] * world, joined, "gradient of the anchors, one process")


CHECKS = {"msn": {"loss*": check_loss, "world*": check_world}}
