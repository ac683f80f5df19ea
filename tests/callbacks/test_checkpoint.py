"""When a run saves and stops: one process at once, several one step later and all at the same step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_zoo import distributed
from ssl_zoo.callbacks.checkpoint import RunCheckpoint, Terminated, Wish
from tests.callbacks.tiny import fake_trainer
from tests.pool import GlooPool

Steps = tuple[list[int], str]  # after which steps was saved, and what ended the run ("": it came to its end)


class Noted(RunCheckpoint):
    """Notes the steps at which it would save; a signal reaches one rank during one step."""

    def __init__(self, asked: tuple[int, int] = (-1, -1), **options: Any) -> None:
        super().__init__("run", {}, **options)
        self.asked = asked  # rank and step
        self.saved: list[int] = []

    def _save(self, trainer: Any) -> None:
        self.saved.append(trainer.global_step)
        self._saved_at += 3600

    def run(self, steps: int, an_epoch: int) -> Steps:
        trainer = fake_trainer(max_steps=steps, max_epochs=-1)
        method = SimpleNamespace(note=lambda *_: None, metrics={})
        try:
            for step in range(1, steps + 1):
                self.on_train_batch_start(trainer, method, None, 0)  # type: ignore[arg-type]
                if self.asked == (distributed.rank(), step):
                    self._signal = Wish.SIGTERM
                trainer.global_step, trainer.is_last_batch = step, step % an_epoch == 0
                self.on_train_batch_end(trainer, method, None, None, 0)  # type: ignore[arg-type]
                if trainer.is_last_batch or step == steps:
                    self.on_train_epoch_end(trainer, method)  # type: ignore[arg-type]
        except Terminated as error:
            return self.saved, error.reason
        return self.saved, ""


def signalled(asked: tuple[int, int], every: int | None = None) -> Steps:
    return Noted(asked, every=every).run(steps=9, an_epoch=6)


def test_one_process_stops_after_the_step_of_the_signal() -> None:
    assert signalled((0, 3)) == ([3], "SIGTERM after step 3")
    assert signalled((0, 5), every=2) == ([2, 4, 5], "SIGTERM after step 5")
    assert signalled((0, 6)) == ([6, 6], "SIGTERM after step 6")  # before the evaluations of the epoch, and after
    assert signalled((0, 9)) == ([6, 9], "")  # nothing was left to do


@pytest.mark.parametrize("rank", [0, 1])
def test_several_stop_together_one_step_later_and_save_by_number_at_once(pool: GlooPool, rank: int) -> None:
    assert pool.run(signalled, (rank, 3)) == [([4], "SIGTERM after step 4")] * 2
    assert pool.run(signalled, (rank, 1), 2) == [([2], "SIGTERM after step 2")] * 2
    assert pool.run(signalled, (rank, 4), 2) == [([2, 4, 5], "SIGTERM after step 5")] * 2
    assert pool.run(signalled, (-1, -1), 2) == [([2, 4, 6, 8, 9], "")] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_in_the_last_steps_of_an_epoch_or_a_run_is_not_lost(pool: GlooPool, rank: int) -> None:
    assert pool.run(signalled, (rank, 5)) == [([6, 6], "SIGTERM after step 6")] * 2
    assert pool.run(signalled, (rank, 6)) == [([6, 6], "SIGTERM after step 6")] * 2
    assert pool.run(signalled, (rank, 7)) == [([6, 8], "SIGTERM after step 8")] * 2
    assert pool.run(signalled, (rank, 9)) == [([6, 9], "")] * 2


def late_on_rank_1() -> Steps:
    """Its clock alone says that it is time to save, once."""
    noted = Noted(minutes=60)
    noted._saved_at -= 3600 * distributed.rank()
    return noted.run(steps=4, an_epoch=9)


def test_what_one_clock_says_all_do_once(pool: GlooPool) -> None:
    assert pool.run(late_on_rank_1) == [([2, 4], "")] * 2


def at_the_time_limit() -> Steps:
    return Noted(max_time=0.0 if distributed.rank() else None).run(steps=5, an_epoch=9)


def test_the_time_limit_of_one_ends_all(pool: GlooPool) -> None:
    assert at_the_time_limit() == ([5], "")  # of one process without a limit
    assert pool.run(at_the_time_limit) == [([2], "trainer.max_time after step 2")] * 2


def test_the_message_says_where_it_is_saved() -> None:
    with pytest.raises(Terminated, match=r"stopped by SIGTERM after step 1; saved run/checkpoints/last.ckpt; continue"):
        checkpoint = Noted()
        checkpoint._end(Wish.SIGTERM, 1)
    assert checkpoint.folder == Path("run/checkpoints")
