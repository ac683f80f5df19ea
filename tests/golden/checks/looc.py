"""LooC: the losses of all spaces, through the method."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ssl_zoo.methods import looc
from tests.golden.compare import close
from tests.golden.harness import Identity, Values, batch_of, data_info, no_recipe


class Column(Identity):
    """Head that reads its space from ``[B, S * D]``."""

    def __init__(self, width: int, which: int) -> None:
        super().__init__(width)
        self.which = which

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.which * self.out_features :][:, : self.out_features]


def check(document: Any, arrays: Values) -> None:
    h = document["hyperparameters"]
    rows, spaces, width = h["B"], h["n"] + 1, h["D"]
    heads = iter([Column(width, space) for space in range(spaces)])
    method = looc.LooC(
        Identity(spaces * width), no_recipe(), data_info(rows), lambda _: next(heads), spaces, h["T"], queue_size=rows
    ).double()
    for queue, keys in zip(method.queues, arrays["in/queue"], strict=True):
        queue.keys = torch.tensor(keys).double()  # of a size that no batch divides; nothing is written here
    raw = torch.tensor(arrays["in/q_raw"]).double()  # [S, B, D]
    query = raw.transpose(0, 1).flatten(1).requires_grad_()  # [B, S * D]
    keys = torch.tensor(arrays["in/keys_raw"]).double().permute(1, 2, 0, 3).flatten(2)  # [V, B, S * D]
    batch = batch_of([query, *keys], {f"shuffle{i}": {"": torch.randperm(rows)} for i in range(spaces)})
    batch.views[0] = query
    with mock.patch.object(looc, "leave_one_out", wraps=looc.leave_one_out) as spy:
        loss = method.training_loss(batch)["loss"]
    loss.backward()
    close(loss, arrays["f64/loss"], "loss")
    close(looc.leave_one_out(*spy.call_args.args), arrays["f64/loss_per_space"], "losses of the spaces")
    close(query.grad.view(rows, spaces, width).transpose(0, 1), arrays["f64/grad_q_raw"], "gradient")


CHECKS = {"looc": {"*": check}}
