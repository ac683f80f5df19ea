from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ssl_zoo import distributed
from ssl_zoo.callbacks.nan_guard import NaNGuard, NonFiniteLoss
from ssl_zoo.data.batch import Batch
from ssl_zoo.errors import ConfigError
from tests.callbacks.test_online_probe import SaveAt
from tests.callbacks.tiny import TinyData, fake_method, fake_trainer, fit, tiny
from tests.pool import GlooPool


def test_the_first_bad_step_is_named_with_its_samples() -> None:
    data = TinyData()
    indices = [batch.index.tolist() for batch in data.train_dataloader()][1]
    with pytest.raises(NonFiniteLoss) as caught:
        fit([NaNGuard(every_n_steps=50)], data=data, method=tiny(poison_step=5))
    message = str(caught.value)
    assert "the loss became nan at step 5 (counted from 0)" in message
    assert f"12 samples, training indices [{', '.join(map(str, indices))}]" in message
    assert "optimizer.values.lr" in message
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(("every", "stopped_at"), [(1, 3), (3, 3), (50, 4)])
def test_the_run_stops_at_the_next_reading(every: int, stopped_at: int) -> None:
    method, guard = tiny(poison_step=2), NaNGuard(every_n_steps=every)
    with pytest.raises(NonFiniteLoss, match="at step 2 "):
        fit([guard], method=method)
    assert guard._read_at == stopped_at


def test_no_checkpoint_is_written_after_a_bad_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="at step 1 "):
        fit([NaNGuard(), SaveAt(2, tmp_path / "bad.ckpt")], method=tiny(poison_step=1))
    assert list(tmp_path.iterdir()) == []


def test_a_micro_batch_belongs_to_its_optimizer_step_and_long_lists_are_cut() -> None:
    guard, trainer = NaNGuard(every_n_steps=1, show=2), fake_trainer(global_step=7)
    guard.on_train_start(trainer, fake_method())
    batch = Batch([], torch.arange(5), None, rng=None)
    guard.on_train_batch_start(trainer, fake_method(), batch, 0)
    trainer.global_step = 8
    with pytest.raises(NonFiniteLoss, match=r"became inf at step 7 .* \[0, 1, \.\.\.\]"):
        guard.on_train_batch_end(trainer, fake_method(), {"loss": torch.tensor(math.inf)}, batch, 0)


def test_a_finite_run_and_a_step_without_loss_pass() -> None:
    fit([NaNGuard(every_n_steps=1)])
    guard, trainer = NaNGuard(), fake_trainer()
    guard.on_train_batch_end(trainer, fake_method(), None, Batch([], torch.arange(2), None, rng=None), 0)
    guard.check(trainer)


def one_bad_rank() -> str:
    """Only rank 1 sees the NaN; every rank must stop, with the same words."""
    guard, rank = NaNGuard(), distributed.rank()
    batch = Batch([], torch.arange(2) + 10 * rank, None, rng=None)
    outputs = {"loss": torch.tensor(math.nan if rank == 1 else 1.0)}
    guard.on_train_batch_end(fake_trainer(global_step=1), fake_method(), outputs, batch, 0)
    try:
        guard.check(fake_trainer(global_step=1))
    except NonFiniteLoss as error:
        return str(error)
    return "no error"


def test_all_ranks_stop_together(pool: GlooPool) -> None:
    one, other = pool.run(one_bad_rank)
    assert one == other
    assert "training indices [10, 11]" in one
