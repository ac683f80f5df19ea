from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_zoo.callbacks.collapse import Collapse, effective_rank, spread
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
    assert "collapse, for 3 steps: every image gets the same output" in message and "learning rate" in message


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
