"""BYOL's ablations: without predictor, and without batch statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_zoo.losses.regression import cosine_regression
from tests.helpers import tiny_batch, tiny_method


def test_without_a_predictor_the_projection_itself_is_compared() -> None:
    method = tiny_method("byol", ["method.predictor=null"], dtype=torch.float64)
    batch = tiny_batch([16, 16], dtype=torch.float64)
    z = [method.projector(method.backbone(view)) for view in batch.views]
    t = [method.teacher(view) for view in batch.views]
    wanted = cosine_regression(z[0], t[1]) + cosine_regression(z[1], t[0])
    out = method.training_loss(batch)
    torch.testing.assert_close(out["loss"], wanted)
    torch.testing.assert_close(out["embeddings"], z[0])
    assert not any(name.startswith("predictor") for name, _ in method.named_parameters())


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_batch_norm_an_image_is_learned_from_by_itself(norm: str) -> None:
    words = ["backbone=resnet8_gn_ws", "backbone.width=8", "backbone.zero_init_residual=false"]
    heads = [f"method.{head}.norm={norm}" for head in ("projector", "predictor")]
    method = tiny_method("byol", [*words, *heads], dtype=torch.float64, tiny=False)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
    batch = tiny_batch([16, 16], dtype=torch.float64)
    whole = method.training_loss(batch)["loss"]
    rows = []
    for i in range(8):
        one = tiny_batch([16, 16], dtype=torch.float64)
        one.views = [view[i : i + 1] for view in batch.views]
        rows.append(method.training_loss(one)["loss"])
    torch.testing.assert_close(whole, torch.stack(rows).mean())  # the loss of a batch is that of its images
