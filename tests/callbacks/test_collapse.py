from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.callbacks.collapse import Collapse, effective_rank, information, spread
from ssl_zoo.data.batch import Batch
from tests.callbacks.tiny import Rows, fake_method, fake_trainer, fit

GENERATOR = torch.Generator().manual_seed(0)
HEALTHY = torch.randn(64, 32, generator=GENERATOR)


def test_spread_is_one_for_isotropic_and_zero_for_constant_features() -> None:
    assert spread(torch.randn(4096, 64, generator=GENERATOR)).item() == pytest.approx(1.0, abs=0.01)
    assert spread(torch.ones(8, 4)).item() == pytest.approx(0.0, abs=1e-6)
    # Half of the rows at e1, half at e2: each dimension has std 1/2, times sqrt(2).
    assert spread(torch.eye(2).repeat(4, 1)).item() == pytest.approx(math.sqrt(2) / 2)


def test_effective_rank_counts_equal_directions() -> None:
    # +-e_i for i < r: r equal singular values after centring.
    for r in (1, 3, 7):
        axes = torch.eye(10)[:r]
        assert effective_rank(torch.cat([axes, -axes])).item() == pytest.approx(r)
    assert effective_rank(torch.ones(8, 4)).item() == 0.0
    values = torch.linalg.svdvals((HEALTHY - HEALTHY.mean(0)).double())
    p = values / values.sum()
    assert effective_rank(HEALTHY).item() == pytest.approx((-(p * p.log()).sum()).exp().item())
    assert effective_rank(HEALTHY.T).item() == pytest.approx(effective_rank(HEALTHY.T.contiguous()).item())


def read(
    collapse: Collapse, features: Tensor, times: int, loss: float = 1.0, start: int = 0, **method: Any
) -> list[str]:
    """Messages of ``times`` readings."""
    watched = fake_method()
    vars(watched).update(method)
    batch = Batch([features], torch.arange(len(features)), None, rng=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(start + 1, start + times + 1):
            outputs = {"loss": torch.tensor(loss), "features": features}
            collapse.on_train_batch_end(fake_trainer(global_step=step), watched, outputs, batch, 0)
    return [str(warning.message) for warning in caught]


def test_constant_output_is_named_once_after_patience() -> None:
    collapse = Collapse(every_n_steps=1, patience=3)
    constant = torch.ones(16, 8) + 1e-4 * HEALTHY[:16, :8]
    assert read(collapse, constant, 2) == []
    (message,) = read(collapse, constant, 5, start=2)
    assert "collapse, for 3 steps: every sample gets the same output" in message and "learning rate" in message


def test_a_healthy_reading_starts_the_count_again() -> None:
    collapse = Collapse(every_n_steps=1, patience=3)
    for start in (0, 3, 6):
        assert read(collapse, torch.ones(16, 8), 2, start=start) == []
        assert read(collapse, HEALTHY, 1, start=start + 2) == []


def test_dead_dimensions_and_a_line_are_named() -> None:
    dead = HEALTHY.clone()
    dead[:, :20] = 0.5
    (message,) = read(Collapse(every_n_steps=1, patience=1), dead, 3)
    assert "62% of the dimensions never vary" in message
    line = HEALTHY[:, :1] * torch.linspace(1, 2, 32)
    (message,) = read(Collapse(every_n_steps=1, patience=1), line, 3)
    assert "effective rank 1.0" in message
    assert read(Collapse(every_n_steps=1, patience=1), HEALTHY[:2], 3) == []  # two rows have rank one by themselves


def test_a_loss_at_ln_k_is_named_with_its_value() -> None:
    stuck = {"uniform_loss": math.log(512)}
    (message,) = read(Collapse(every_n_steps=1, patience=4), HEALTHY, 9, loss=6.24, **stuck)
    assert "the loss stays at 6.2400" in message and "ln K = 6.2383" in message
    assert read(Collapse(every_n_steps=1, patience=4), HEALTHY, 9, loss=6.0, **stuck) == []
    assert read(Collapse(every_n_steps=1, patience=4), HEALTHY, 9, loss=6.24) == []


def test_the_uniform_loss_that_a_method_reports_for_a_batch_goes_before_its_own() -> None:
    collapse = Collapse(every_n_steps=1, patience=4)
    (message,) = told(collapse, 9, loss=torch.tensor(6.24), uniform_loss=torch.tensor(6.2383))
    assert "the loss stays at 6.2400, that of uniform assignments (its parts at ln K = 6.2383)" in message
    assert told(Collapse(every_n_steps=1, patience=4), 9, loss=torch.tensor(6.24), uniform_loss=torch.tensor(6.0)) == []


def test_healthy_and_non_finite_features_give_no_warning() -> None:
    collapse = Collapse(every_n_steps=1, patience=1)
    assert read(collapse, HEALTHY, 5) == []
    assert collapse.latest["collapse/rank"] > 20
    assert read(collapse, HEALTHY * math.nan, 5, start=5) == []
    assert math.isnan(collapse.latest["collapse/std"])


def test_readings_come_every_n_steps_once_per_step() -> None:
    rows = Rows()
    fit([Collapse(every_n_steps=2)], logger=rows, max_epochs=4, accumulate_grad_batches=2)
    assert list(rows.column("collapse/std")) == [2, 4, 6, 8]  # eight optimizer steps of two micro-batches


def test_what_was_named_stays_named_after_a_resume() -> None:
    first, resumed = Collapse(every_n_steps=1, patience=2), Collapse(every_n_steps=1, patience=2)
    assert len(read(first, torch.ones(16, 8), 2)) == 1
    resumed.load_state_dict(first.state_dict())
    assert read(resumed, torch.ones(16, 8), 5, start=2) == []


def told(collapse: Collapse, times: int, start: int = 0, **said: Tensor) -> list[str]:
    """Messages of ``times`` readings of what a method reports beside healthy features."""
    watched = fake_method()
    batch = Batch([HEALTHY], torch.arange(len(HEALTHY)), None, rng=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(start + 1, start + times + 1):
            outputs = {"loss": torch.tensor(1.0), "features": HEALTHY, **said}
            collapse.on_train_batch_end(fake_trainer(global_step=step), watched, outputs, batch, 0)
    return [str(warning.message) for warning in caught]


def quick() -> Collapse:
    return Collapse(every_n_steps=1, early_patience=3)


def test_embeddings_that_become_alike_are_named_while_the_features_differ() -> None:
    collapse = quick()
    assert told(collapse, 4, embeddings=HEALTHY) == []
    assert told(collapse, 2, start=4, embeddings=HEALTHY * 0.05 + 1) == []
    (message,) = told(collapse, 5, start=6, embeddings=HEALTHY * 0.05 + 1)
    assert "become alike (their spread fell from 0.9" in message and "to 0.05)" in message
    assert "method.predictor" in message and "collapse, for 3 steps" in message


def test_embeddings_that_lose_their_directions_are_named() -> None:
    collapse = quick()
    told(collapse, 1, embeddings=HEALTHY)
    (message,) = told(collapse, 5, start=1, embeddings=HEALTHY[:, :4] @ HEALTHY[:4])
    assert "use few directions (their effective rank fell from 2" in message and "method.stop_gradient=true" in message
    assert told(quick(), 9, embeddings=HEALTHY[:, :1]) == []  # few from the start: nothing has fallen


def test_assignments_that_tell_nothing_are_named_by_their_kind() -> None:
    clusters = 16
    one_hot = torch.eye(clusters)
    alike, same, balanced = one_hot.mean(0).expand(64, -1), one_hot[3].expand(64, -1), one_hot.repeat(4, 1)
    (message,) = told(quick(), 5, assignments=alike)
    assert "every sample is assigned to all 16 clusters alike (the assignments tell 0.000 of 2.77 nats" in message
    assert "method.epsilon" in message
    (message,) = told(quick(), 5, assignments=same)
    assert "all samples are assigned to the same few of 16 clusters" in message and "method.centring=true" in message
    assert told(quick(), 5, assignments=balanced) == []


def test_information_is_ln_k_for_balanced_hard_assignments() -> None:
    for value, wanted in zip(information(torch.eye(8).repeat(3, 1)), (math.log(8), math.log(8)), strict=True):
        assert value.item() == pytest.approx(wanted)
    # Half of the rows say (1, 0), half (1/2, 1/2): H(3/4, 1/4) less half of ln 2.
    mixed = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    whole = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    got, mean = information(mixed)
    assert (got.item(), mean.item()) == (pytest.approx(whole - math.log(2) / 2), pytest.approx(whole))


def test_the_height_from_which_embeddings_fall_survives_a_resume() -> None:
    first, resumed = quick(), quick()
    told(first, 1, embeddings=HEALTHY)
    resumed.load_state_dict(first.state_dict())
    assert len(told(resumed, 3, start=1, embeddings=HEALTHY * 0.05 + 1)) == 1
    assert resumed.latest["collapse/embedding_std"] < 0.06 and "collapse/embedding_rank" in resumed.latest
