"""Fine-tuning: the loss of labelled rows on any number of processes, and weights that do not fit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ssl_zoo.backbones.image.tiny import resnet8
from ssl_zoo.distributed import mean_over_ranks
from ssl_zoo.methods.finetune import FineTune
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.heads import MLP
from ssl_zoo.optim.recipe import OptimizerRecipe
from tests import helpers
from tests.pool import GlooPool


def method_of(**options: Any) -> FineTune:
    torch.manual_seed(0)
    recipe = OptimizerRecipe(torch.optim.SGD, {"lr": 0.1}, lr_scale="absolute")
    backbone = resnet8(image_size=16, width=4, zero_init_residual=False)
    method = FineTune(backbone, recipe, helpers.info(), partial(MLP, hidden=[8], out_features=4), **options)
    convert(method, None)
    method.bind(helpers.ROWS)
    return method.train()


def batch_of() -> Any:
    """Some rows have no label, and not as many on every process."""
    batch = helpers.tiny_batch([16], dtype=torch.float64)
    batch.label[batch.index < 24] = -1
    return batch


def step() -> dict[str, Any]:
    method = method_of(head_layers=1, init="normal", label_smoothing=0.1).double()
    out = helpers.train_step(method, batch_of())
    return {"loss": mean_over_ranks(out["loss"]), **out["gradients"]}


def test_the_loss_is_the_mean_over_labelled_rows_and_two_processes_give_the_same(pool: GlooPool) -> None:
    method, batch = method_of(head_layers=1, init="normal", label_smoothing=0.1).double(), batch_of()
    out = method.training_loss(batch)
    logits, known = method.classifier(out["features"]), batch.label >= 0
    wanted = torch.nn.functional.cross_entropy(logits[known], batch.label[known], label_smoothing=0.1)
    torch.testing.assert_close(out["loss"], wanted)
    right = (logits.argmax(1) == batch.label)[known].double().mean()
    torch.testing.assert_close(out["accuracy"], right)
    one = step()
    for two in pool.run(step):
        assert two.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-10, atol=1e-10)


def test_weights_that_do_not_fit_are_refused() -> None:
    method = method_of(head_layers=1)
    state = method.state_dict()
    method.begin_with({name: value for name, value in state.items() if not name.startswith("classifier.3.")})
    with pytest.raises(ValueError, match="do not fit: missing .*'backbone.net.conv1.weight'"):
        method.begin_with({name: value for name, value in state.items() if "conv1" not in name})
    with pytest.raises(ValueError, match="unknown .'teacher'"):
        method.begin_with({**state, "teacher": torch.zeros(1)})


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="a head of 2 layers has no first 3"):
        method_of(head_layers=3)
    recipe = OptimizerRecipe(torch.optim.SGD, {"lr": 0.1})
    with pytest.raises(ValueError, match="head_layers=1: the pre-trained method has no projector; wanted 0"):
        FineTune(resnet8(image_size=16), recipe, helpers.info(), None, head_layers=1)
