"""MoCHi: which keys are hardest, what is mixed from them, and the loss and both gradients."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from ssl_zoo.augmentations.rng import RecordedRNG
from ssl_zoo.data.batch import Batch
from ssl_zoo.losses.hard_mixing import hardest
from ssl_zoo.losses.key_sets import info_nce_with
from ssl_zoo.methods import mochi
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, data_info, fill, no_recipe


def places(near: Tensor, rows: np.ndarray) -> Tensor:
    """Where the recorded keys stand among the hardest, in our order."""
    found = near[:, None, :] == torch.tensor(rows)[:, :, None]  # [B, s, N]
    assert found.any(2).all(), "a recorded key is not among the hardest"
    return found.int().argmax(2)


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    raw, k, queue, alpha, beta = (
        torch.tensor(arrays[f"in/{name}"]).double() for name in ("q_raw", "k", "queue", "alpha", "beta")
    )
    near = hardest(torch.nn.functional.normalize(raw, dim=1), queue, h["N"])
    close(near.sort(1).values, arrays["f64/hardest"], "hardest")
    draws = {"first": places(near, arrays["in/mix_i"]), "second": places(near, arrays["in/mix_j"]), "alpha": alpha,
             "third": places(near, arrays["in/query_mix_j"]), "beta": 2 * beta}
    for through, name in ((False, "grad_q_raw_detached"), (True, "grad_q_raw_through")):
        method = mochi.MoCHi(
            Identity(h["D"]), no_recipe(), data_info(h["B"]), Identity, h["T"], 0.999, h["K"],
            hardest_of=h["N"], pairs=h["s"], with_query=h["sp"], through_query=through, mix_start=0,
        ).double()
        fill(method, {"queue.keys": queue})
        x = raw.clone().requires_grad_()
        rng = RecordedRNG(sample={"mochi": draws}, shared={"shuffle1": {"": torch.arange(h["B"])}})
        with mock.patch.object(mochi, "info_nce_with") as spy:
            method.training_loss(Batch([x, k], torch.arange(h["B"]), None, rng))
        q, _, keys, extra, temperature = spy.call_args.args
        loss = info_nce_with(q, k, keys, extra, temperature)  # the recorded keys are unit in float32 only
        loss.backward()
        close(loss, arrays["f64/loss"], "loss")
        close(x.grad, arrays[f"f64/{name}"], name)
        close(extra[:, : h["s"]], arrays["f64/mixed"], "mixed")
        close(extra[:, h["s"] :], arrays["f64/query_mixed"], "mixed with the query")
        logits = [(q * k).sum(1, keepdim=True), q @ keys.T, (extra @ q[:, :, None])[:, :, 0]]
        close(torch.cat(logits, 1) / temperature, arrays["f64/logits"], "logits")


CHECKS = {"mochi": {"*": check}}
