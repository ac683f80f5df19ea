"""InstDisc: steps on one memory bank with NCE, full and sampled softmax, and the weighted kNN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.image.source import image_info
from ssl_zoo.knn import knn_top1
from ssl_zoo.losses.nce import picked_scores
from ssl_zoo.methods.instdisc import InstDisc
from tests.golden.checks.moco import DTYPES, exact_of, precisions, recorded
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, fill, no_recipe, steps_of

LOSSES = {"nce": "nce", "full_softmax": "full", "sampled_softmax": "sampled"}


@contextmanager
def units() -> Iterator[list[Tensor]]:
    """What is normalised inside: unit rows, which keep their gradient."""
    real, seen = F.normalize, []

    def spy(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = real(x, *args, **kwargs)
        # With a default device torch calls it once more inside itself.
        if out.requires_grad and not any(out is other for other in seen):
            out.retain_grad()
            seen.append(out)
        return out

    with mock.patch.object(F, "normalize", spy):
        yield seen


def batch_of(features: np.ndarray, index: np.ndarray, rows: np.ndarray, dtype: torch.dtype) -> Batch:
    """Recorded features as the view, and the recorded rows behind the positive as the draw."""
    view = torch.tensor(features).to(dtype).requires_grad_()
    rng = RecordedRNG(sample={"negatives": {"rows": torch.tensor(rows)[:, 1:]}})
    return Batch([view], torch.tensor(index), None, rng)


def scores_of(method: InstDisc, z: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
    """The "output of the model" of the authors: probabilities for NCE, logits for the others."""
    if method.contrast is None:
        return z @ keys.T / method.temperature
    scores = picked_scores(z, keys, rows) / method.temperature
    return scores.exp() / method.contrast.normaliser if method.contrast.loss == "nce" else scores


def replay(h: Any, arrays: Values, loss: str, dtype: torch.dtype) -> dict[tuple[int, str], Any]:
    info = image_info(h["n_data"], None, 1, 1, h["batch"])
    method = InstDisc(
        Identity(h["dim"]), no_recipe(), info, Identity, cast(Literal["nce", "sampled", "full"], loss),
        h["temperature"], h["n_negatives"], h["memory_momentum"],
    )
    fill(method, {"bank.keys": arrays["init/memory"]})
    method.to(dtype)
    found: dict[tuple[int, str], Any] = {}
    for t in steps_of(arrays, "in/step{}/features_raw"):
        rows = arrays[f"in/step{t}/sampled_index"]
        batch = batch_of(arrays[f"in/step{t}/features_raw"], arrays[f"in/step{t}/instance_index"], rows, dtype)
        before = method.bank.keys.clone()
        with units() as seen:
            loss = method.training_loss(batch)["loss"]
        (z,) = seen
        found[t, "out"] = scores_of(method, z.detach(), torch.tensor(rows), before)
        loss.backward()
        method.on_after_backward()
        found |= {(t, "loss"): loss.detach(), (t, "memory"): method.bank.keys.clone()}
        found |= {(t, "grad_features_normalised"): z.grad, (t, "grad_features_raw"): batch.views[0].grad}
    if method.contrast is not None:
        found[0, "Z"] = method.contrast.normaliser
    return found


def check_steps(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"], document["case"]
    for precision in precisions(arrays):
        found = replay(h, arrays, LOSSES[case], DTYPES[precision])
        for t, _, name, key in recorded(arrays, precision, case):
            close(found[t, name], arrays[key], key, exact_of(arrays, key))
        if (key := f"{precision}/{case}/Z") in arrays:
            close(found[0, "Z"], arrays[key], key, exact_of(arrays, key))


def check_knn(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    bank, bank_labels, query, labels = (
        torch.tensor(arrays[f"in/knn/{name}"]) for name in ("bank", "bank_labels", "query", "query_labels")
    )
    options = {"classes": int(bank_labels.max()) + 1, "k": h["knn_k"], "temperature": h["knn_sigma"]}
    for precision in precisions(arrays):
        top1 = knn_top1(query, labels, bank, bank_labels, **options)
        close(top1 / 100, arrays[f"{precision}/knn/top1"], "top-1")


CHECKS = {"instdisc": {"knn*": check_knn, "*": check_steps}}
