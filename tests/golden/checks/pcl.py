"""PCL: concentrations of a given clustering, and steps with InfoNCE and ProtoNCE against drawn prototypes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods import pcl
from ssl_zoo.modules.kmeans import Clusters
from tests.golden.checks.moco import DTYPES, exact_of, logits_of, precisions
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, numpy_of, steps_of


def method_of(h: Any, arrays: Values) -> pcl.PCL:
    """With the recorded clusterings, as the E-step leaves them."""
    info = image_info(samples=h["n_data"], classes=None, image_size=1, channels=1, batch_size=h["batch"])
    sizes = {"queue_size": h["queue"], "clusters": h["clusters"], "negatives": h["n_negative_prototypes"]}
    method = pcl.PCL(Identity(h["dim"]), no_recipe(), info, Identity, h["temperature"], **sizes)
    fill(method, {"queue.keys": arrays["init/queue"].T})
    for i, level in enumerate(method.levels):
        names = ("centroids_unnormalised", "assignment", "sq_distance")
        given = [torch.tensor(arrays[f"in/set{i}/{name}"]) for name in names]
        level.fill(Clusters(*given, 0.0), method.temperature, method.smoothing)
        close(level.concentration, arrays[f"f32/set{i}/density"], f"concentration {i}")
        close(level.prototypes, arrays[f"f32/set{i}/centroids"], f"prototypes {i}")
        # The authors' float64 run goes on from these float32 numbers.
        recorded = {"concentration": arrays[f"f32/set{i}/density"], "prototypes": arrays[f"f32/set{i}/centroids"]}
        fill(level, recorded)
    return method


def prototype_logits(call: Any) -> Tensor:
    q, prototypes, concentration, positives, negatives, _ = call
    columns = torch.cat([positives, negatives])
    return q @ prototypes[columns].T / concentration[columns]


def replay(h: Any, arrays: Values, precision: str) -> dict[str, Any]:
    method = method_of(h, arrays).to(DTYPES[precision]).train()
    found: dict[str, Any] = {}
    for t in steps_of(arrays, "in/step{}/"):
        own = f"in/step{t}"
        views = [torch.tensor(arrays[f"{own}/{name}_raw"]).to(DTYPES[precision]) for name in ("q", "k")]
        views[0].requires_grad_()
        shared = {"shuffle": {"": torch.arange(h["batch"])}}
        for i, count in enumerate(h["clusters"]):
            first = torch.tensor(arrays[f"{own}/set{i}/negative_prototypes"])
            rest = torch.ones(count).index_fill(0, first, 0).nonzero().flatten()
            shared[f"negatives{i}"] = {"": torch.cat([first, rest])}
        index = torch.tensor(arrays[f"{own}/instance_index"])
        queued = method.queue.keys.clone()
        method.before_step()
        with (
            mock.patch.object(pcl, "info_nce", wraps=pcl.info_nce) as instance,
            mock.patch.object(pcl, "proto_nce", wraps=pcl.proto_nce) as prototype,
        ):
            out = method.training_loss(Batch(views, index, None, RecordedRNG(shared=shared)))
        out["loss"].backward()
        method.on_after_backward()
        (q, k, _, temperature), _ = instance.call_args
        step = {"loss": out["loss"], "loss_instance": out["instance"], "loss_proto": out["prototype"]}
        step |= {"grad_q_raw": views[0].grad, "logits_instance": logits_of([((q, k, queued, temperature), {})])}
        for i, call in enumerate(prototype.call_args_list):
            step[f"logits_proto_set{i}"] = prototype_logits(call.args)
        state = {"queue": method.queue.keys.T, "pointer": torch.tensor([method.queue.pushed % method.queue.size])}
        found |= {f"step{t}/{name}": value for name, value in numpy_of(step).items()}
        found |= {f"state_after_step{t}/{name}": value for name, value in numpy_of(state).items()}
    return found


def check(document: Any, arrays: Values) -> None:
    compare(arrays, document["case"], lambda precision: replay(document["hyperparameters"], arrays, precision))


def compare(arrays: Values, case: str, run: Any) -> None:
    """Everything recorded of a case, in both precisions."""
    for precision in precisions(arrays):
        found = run(precision)
        for key in (name for name in arrays if name.startswith(f"{precision}/{case}/")):
            close(found[key.removeprefix(f"{precision}/")], arrays[key], key, exact_of(arrays, key))


def check_clusterings(document: Any, arrays: Values) -> None:
    method_of(document["hyperparameters"], arrays)  # compares the concentrations and prototypes of every clustering


CHECKS = {"pcl": {"set*": check_clusterings, "*": check}}
