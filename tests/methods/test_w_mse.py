"""W-MSE: sub-batches of the whole batch, and what is refused before a run starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.whitening import whitened_mse
from ssl_zoo.methods.w_mse import WMSE
from ssl_zoo.worker import build_run
from tests.golden.harness import Identity, data_info, no_recipe
from tests.helpers import ROWS, tiny_batch, tiny_config, tiny_method, view_sizes


def test_every_round_has_its_own_permutation_and_four_views_are_compared_in_pairs() -> None:
    method = tiny_method("w_mse", ["method.rounds=2", "augmentation.views.0.count=4"], dtype=torch.float64)
    batch = tiny_batch([16] * 4, dtype=torch.float64)
    h = [method.backbone(view) for view in batch.views]
    z = method.projector(torch.cat(h)).chunk(4)
    draw = batch.rng.shared("whitening")
    orders = [draw.permutation(ROWS, i) for i in range(2)]
    assert not torch.equal(*orders)
    torch.testing.assert_close(method.training_loss(batch)["loss"], whitened_mse(z, orders, ROWS))


def refusal(**options: Any) -> str:
    with pytest.raises(ValueError) as error:
        WMSE(Identity(4), no_recipe(), data_info(12), Identity, **options)
    return str(error.value)


def test_wrong_values_are_refused_before_a_run_starts() -> None:
    assert "method.sub_batch=5 does not divide the 12 rows of a micro-batch" in refusal(sub_batch=5)
    assert "try method.sub_batch=4" in refusal(sub_batch=5)
    assert "try method.projector.out_features=2, a larger data.batch_size" in refusal(sub_batch=4)
    assert "method.rounds=0: wanted 1 or more" in refusal(sub_batch=6, rounds=0)
    assert "method.shrinkage=1.5: wanted a share from 0 to 1" in refusal(sub_batch=6, shrinkage=1.5)
    WMSE(Identity(4), no_recipe(), data_info(12), Identity, sub_batch=4, shrinkage=0.1)  # type: ignore[arg-type]


def test_the_scope_of_a_rank_is_the_same_on_one_process() -> None:
    losses = []
    for scope in ("global", "rank"):
        method = tiny_method("w_mse", [f"method.scope={scope}"])
        losses.append(method.training_loss(tiny_batch(view_sizes("w_mse")))["loss"].item())
    assert losses[0] == losses[1]


def share_problem(samples: int, sub_batch: int, **options: Any) -> str | None:
    method = WMSE(Identity(4), no_recipe(), data_info(24), Identity, sub_batch=sub_batch, **options)  # type: ignore[arg-type]
    return method.share_problem(samples)


def test_rows_of_a_process_that_cannot_be_whitened_in_sets_are_told() -> None:
    ranks = {"scope": "rank"}
    assert share_problem(6, 8, **ranks) == (
        "method.sub_batch=8 does not divide the 6 rows of a process, which method.scope=rank whitens by themselves; "
        "try method.sub_batch=6, or method.scope=global"
    )
    assert str(share_problem(4, 8, **ranks)).endswith("by themselves; try method.scope=global")  # 4 dimensions
    assert str(share_problem(4, 8, shrinkage=0.1, **ranks)).endswith("try method.sub_batch=4, or method.scope=global")
    assert share_problem(6, 8) is share_problem(8, 8, **ranks) is share_problem(24, 8, **ranks) is None


def test_they_are_refused_before_the_first_step() -> None:
    words = ["data.source.samples=24", "trainer=cpu", "trainer.devices=3", "data.batch_size=24", "resume=null"]
    cfg = tiny_config("w_mse", [*words, "method.scope=rank"])
    cfg.method.sub_batch = 12
    with pytest.raises(ConfigError, match="method.sub_batch=12 does not divide the 8 rows of a process"):
        build_run(cfg)
    cfg.method.scope = "global"
    build_run(cfg)
