"""KCL: all or k positives, both kinds of unused ones, and the queue with its labels."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.methods import kcl
from tests.golden.checks.moco import DTYPES, exact_of, precisions, recorded
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, data_info, fill, no_recipe, steps_of

CASES: dict[str, dict[str, Any]] = {"full": {"positives": None}, "k_v1": {}, "k_v2": {"unused": "zero"}}


def classified(call: Any) -> tuple[Tensor, Tensor]:
    """Logits and targets that the loss was asked for, as the authors lay them out: the own key first."""
    q, k, queue, positives, temperature, zeroed = call.args
    others = q @ queue.T
    others = others if zeroed is None else others * ~zeroed
    target = torch.cat([torch.ones(len(q), 1), positives], 1).to(q.dtype)
    logits = torch.cat([(q * k).sum(1, keepdim=True), others], 1) / temperature
    return logits, target / target.sum(1, keepdim=True)


def check(document: Any, arrays: Values) -> None:
    h, case = document["hyperparameters"], document["case"]
    for precision in precisions(arrays):
        options = {"positives": h["k_positives"], **CASES[case]}
        method = kcl.KCL(
            Identity(h["dim"]), no_recipe(), data_info(h["batch"]), Identity, h["temperature"], 0.999, h["queue"],
            **options,
        )
        method.to(DTYPES[precision])
        assert arrays["init/queue_labels"].max() < h["classes"]
        fill(method, {"queue.keys": arrays["init/queue"].T, "queue.labels": arrays["init/queue_labels"]})
        for t in steps_of(arrays, "in/step{}/q_raw"):
            found = step(method, arrays, f"in/step{t}", arrays[f"{precision}/{case}/step{t}/soft_target"])
            for other, _, name, key in recorded(arrays, precision, case):
                if other == t:
                    close(found[name], arrays[key], key, exact_of(arrays, key))


def step(method: kcl.KCL, arrays: Values, inputs: str, target: Any) -> dict[str, Tensor]:
    q, k = (torch.tensor(arrays[f"{inputs}/{x}_raw"]).to(method.queue.keys.dtype) for x in "qk")
    q.requires_grad_()
    # The recorded choice stands first in our draw; which of equal ones the authors' topk takes depends on the device.
    rng = RecordedRNG(
        sample={"positives": {"rank": torch.tensor(target[:, 1:] > 0).to(q.dtype)}},
        shared={"shuffle1": {"": torch.arange(len(q))}},
    )
    with mock.patch.object(kcl, "k_positive", wraps=kcl.k_positive) as spy:
        batch = Batch([q, k], torch.arange(len(q)), torch.tensor(arrays[f"{inputs}/labels"]), rng)
        loss = method.training_loss(batch)["loss"]
    logits, targets = classified(spy.call_args)
    loss.backward()
    method.on_after_backward()
    queue = method.queue
    return {
        "loss": loss, "logits": logits, "soft_target": targets, "grad_q_raw": q.grad, "queue": queue.keys.T,
        "queue_labels": queue.labels, "pointer": torch.tensor([queue.pushed % queue.size]),
    }


CHECKS = {"kcl": {case: check for case in CASES}}
