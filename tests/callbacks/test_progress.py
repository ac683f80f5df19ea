from __future__ import annotations

import io
import re

import torch
from rich.console import Console

from ssl_zoo.callbacks.progress import Progress, clock, summary
from ssl_zoo.data.batch import Batch
from tests.callbacks.tiny import fake_method, fake_trainer, fit


def test_one_line_per_epoch_with_what_is_known() -> None:
    progress = Progress(live=False)
    progress.console = Console(file=io.StringIO(), soft_wrap=True)
    fit([progress])
    lines = progress.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    (estimate,) = [line for line in lines if not line.startswith("epoch")]
    assert re.fullmatch(r"estimated time: 0:00:0\d, from the first 10 steps", estimate)
    lines.remove(estimate)
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"epoch {number}/3  loss \d+\.\d{{4}}  left 0:00:0\d", line), line


def test_the_loss_of_a_line_is_the_mean_of_the_epoch_with_micro_batches_undone() -> None:
    progress, trainer = Progress(live=False), fake_trainer(accumulate_grad_batches=2)
    batch = Batch([], torch.arange(2), None, rng=None)
    progress.on_train_start(trainer, fake_method())
    for loss in (1.0, 2.0, 3.0, 4.0):  # Lightning gives them divided by the number of micro-batches
        progress.on_train_batch_end(trainer, fake_method(), {"loss": torch.tensor(loss / 2)}, batch, 0)
    assert progress._loss() == {"train/loss": 2.5}


def test_the_words_of_every_metric() -> None:
    metrics = {
        "train/loss": 1.25,
        "probe/top1": 71.24,
        "knn/top1": 68.0,
        "collapse/std": 0.62,
        "throughput/samples_per_s": 1234.4,
        "throughput/data_wait": 0.031,
        "lr": 0.1,
    }
    assert summary(metrics) == "loss 1.2500  probe 71.2 %  kNN 68.0 %  std 0.62  1234 samples/s  waiting for data 3%"
    assert summary({}) == ""
    assert clock(3725.4) == "1:02:05"


def test_a_terminal_gets_a_bar_that_is_taken_down_at_the_end_and_after_an_error() -> None:
    progress = Progress(every_n_steps=1)
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=160)
    fit([progress], max_epochs=1)
    text = progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert "━" in text and "epoch 1/1" in text
    assert progress._bar is None
    progress.on_train_start(fake_trainer(), fake_method())
    assert progress._bar is not None
    progress.on_exception(fake_trainer(), fake_method(), RuntimeError())
    assert progress._bar is None


def test_the_time_left_is_that_of_this_session() -> None:
    progress, trainer = Progress(live=False), fake_trainer(global_step=60)
    progress.on_train_start(trainer, fake_method())
    assert progress._left(trainer, fake_method()) == "?"
    progress._started -= 10.0
    trainer.global_step = 70
    assert progress._left(trainer, fake_method()) == "0:00:30"  # ten steps in ten seconds, thirty to go
