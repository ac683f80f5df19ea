from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from ssl_zoo.callbacks import throughput
from ssl_zoo.callbacks.throughput import Throughput
from ssl_zoo.data.batch import Batch
from tests.callbacks.tiny import Rows, fake_method, fake_trainer, fit

BATCH = Batch([], torch.arange(10), None, rng=None)


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that moves only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return sleep


def drive(callback: Throughput, sleep: Callable[[float], None], epochs: int, steps: int, wait: float) -> list[dict]:
    """Steps of 0.5 s of which ``wait`` are waiting, and 60 s of evaluation between epochs; the rows reported."""
    method, rows = fake_method(), []
    method.report = lambda row: rows.append(dict(row))
    waited = [0.0]
    loader = SimpleNamespace(take_wait=lambda: [waited[0], waited.__setitem__(0, 0.0)][0])
    trainer = fake_trainer(train_dataloader=loader)
    callback.on_train_start(trainer, method)
    for _ in range(epochs):
        callback.on_train_epoch_start(trainer, method)
        for i in range(steps):
            sleep(0.5)
            waited[0] += wait
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, method, {}, BATCH, i)
        callback.on_train_epoch_end(trainer, method)
        sleep(60)
    return rows


def test_speed_and_wait_of_a_window_leave_evaluation_out(sleep: Callable[[float], None]) -> None:
    rows = drive(Throughput(every_n_steps=4), sleep, epochs=2, steps=4, wait=0.05)
    expected = {"throughput/samples_per_s": pytest.approx(20.0), "throughput/data_wait": pytest.approx(0.1)}
    assert rows == [expected, expected]


def test_a_short_epoch_is_a_window_of_its_own_and_a_rest_goes_on(sleep: Callable[[float], None]) -> None:
    assert len(drive(Throughput(every_n_steps=50), sleep, epochs=3, steps=4, wait=0.0)) == 3
    assert len(drive(Throughput(every_n_steps=3), sleep, epochs=3, steps=4, wait=0.0)) == 4


def test_waiting_is_warned_of_once_with_the_three_knobs(sleep: Callable[[float], None]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drive(Throughput(every_n_steps=1, patience=2), sleep, epochs=1, steps=3, wait=0.15)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith("training waits for data 30% of the time")
    assert all(knob in message for knob in ("data.workers", "augmentation.where=device", "packed"))


def test_the_first_window_and_one_below_the_limit_do_not_count(sleep: Callable[[float], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(Throughput(every_n_steps=1, patience=3), sleep, epochs=1, steps=3, wait=0.15)
        drive(Throughput(every_n_steps=1, patience=1), sleep, epochs=1, steps=9, wait=0.09)


def test_a_loader_that_does_not_measure_gives_no_share() -> None:
    rows = Rows()
    fit([Throughput()], logger=rows, max_epochs=2)
    assert list(rows.column("throughput/samples_per_s")) == [4, 8]
    assert rows.column("throughput/data_wait") == {}
