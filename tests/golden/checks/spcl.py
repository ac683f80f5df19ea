"""SpCL: steps against the hybrid memory, and the pseudo labels of one and two epochs."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import sparse
from torch import nn

from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods import spcl
from ssl_zoo.modules.pseudo_labels import self_paced
from ssl_zoo.modules.rerank import jaccard_distance
from tests.golden.checks.moco import DTYPES
from tests.golden.checks.pcl import compare
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, numpy_of, steps_of


def method_of(memory: np.ndarray, labels: np.ndarray, temperature: float, momentum: float) -> spcl.SpCL:
    samples, dim = memory.shape
    info = image_info(samples=samples, classes=None, image_size=1, channels=1, batch_size=1)
    method = spcl.SpCL(Identity(dim), no_recipe(), info, temperature, momentum)
    method.neck = nn.Identity()
    fill(method, {"memory.features": memory, "memory.labels": labels})
    return method


def step(method: spcl.SpCL, features: np.ndarray, index: np.ndarray, dtype: torch.dtype) -> dict[str, np.ndarray]:
    view = torch.tensor(features).to(dtype).requires_grad_()
    with mock.patch.object(spcl, "hybrid_memory", wraps=spcl.hybrid_memory) as spy:
        loss = method.training_loss(Batch([view], torch.tensor(index), None, None))["loss"]
    z = spy.call_args.args[0]
    z.retain_grad()
    kept = method.memory.features.clone()
    loss.backward()
    assert torch.equal(kept, method.memory.features)
    method.on_after_backward()
    gradients = {"grad_features_normalised": z.grad, "grad_features_raw": view.grad}
    return numpy_of({"loss": loss, **gradients, "kept": kept, "memory": method.memory.features})


def replay(h: Any, arrays: Values, precision: str) -> dict[str, Any]:
    method = method_of(arrays["init/memory"], arrays["in/labels"], h["temp"], h["m"]).to(DTYPES[precision])
    found: dict[str, Any] = {}
    for t in steps_of(arrays, "in/step{}/"):
        inputs = (arrays[f"in/step{t}/{name}"] for name in ("features_raw", "index"))
        out = step(method, *inputs, DTYPES[precision])
        found |= {f"step{t}/{name}": value for name, value in out.items()}
        found[f"state_after_step{t}/memory"] = out["memory"]
    return found


def check_steps(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    compare(arrays, document["case"], lambda precision: replay(h, arrays, precision))


def dense(distance: sparse.csr_matrix) -> np.ndarray:
    out = np.ones(distance.shape, dtype=np.float32)
    rows = np.repeat(np.arange(distance.shape[0]), np.diff(distance.indptr))
    out[rows, distance.indices] = distance.data
    return out


def check_clusters(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    distance = jaccard_distance(torch.tensor(arrays["in/cluster/features"]), h["k1"], h["k2"])
    close(dense(distance), arrays["f32/cluster/jaccard_distance"], "Jaccard distance")
    found = self_paced(distance, h["eps"], h["gap"])
    ours = {"raw_labels": found.clusters, "raw_tight": found.tight, "raw_loose": found.loose}
    ours |= {"R_comp": found.compactness, "R_indep": found.independence, "indep_thres": np.float64(found.threshold)}
    for name, value in {**ours, "pseudo_labels": found.labels}.items():
        close(value, arrays[f"f32/cluster/{name}"], name)


def check_two_epochs(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    method = method_of(arrays["memory_before"], arrays["memory_labels"], h["temp"], h["mom"])
    out = step(method, arrays["features"], arrays["indexes"], torch.float32)
    close(out["loss"], arrays["loss_f32"], "loss")
    close(out["kept"], arrays["memory_after_forward"], "memory before the backward pass is over")
    close(out["grad_features_normalised"], arrays["grad_features"], "gradient")
    close(out["memory"], arrays["memory_after_backward"], "memory")
    threshold = None
    for epoch, name in enumerate(("jac_features", "epoch1_features")):
        distance = jaccard_distance(torch.tensor(arrays[name]), h["k1"], h["k2"])
        if epoch == 0:
            close(dense(distance), arrays["jaccard_distance"], "Jaccard distance")
        found = self_paced(distance, h["eps"], h["gap"], threshold=threshold)
        threshold = found.threshold
        ours = {"": found.clusters, "_tight": found.tight, "_loose": found.loose}
        for kind, value in ours.items():
            close(value, arrays[f"epoch{epoch}_dbscan{kind}"], f"DBSCAN{kind} in epoch {epoch}")
        close(found.labels, arrays[f"epoch{epoch}_labels"], f"labels of epoch {epoch}")


CHECKS = {"spcl": {"all": check_two_epochs, "cluster": check_clusters, "*": check_steps}}
