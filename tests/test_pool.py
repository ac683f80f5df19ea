"""What the tests stand on: the pool of processes, the clock of waiting, and collecting."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests import patience
from tests.pool import GlooPool


def total(x: float) -> float:
    tensor = torch.tensor(x)
    dist.all_reduce(tensor)
    return tensor.item()


def slow_on_rank_1(seconds: float) -> str:
    time.sleep(seconds * dist.get_rank())
    return "late"


def wrong() -> None:
    raise ValueError("the test's own fault")


def gone() -> None:
    os._exit(3)


@pytest.fixture
def own_pool() -> Iterator[GlooPool]:
    pool = GlooPool(2)
    yield pool
    pool.close()


@pytest.mark.slow
def test_after_a_timeout_and_a_death_every_question_gets_its_own_answer(own_pool: GlooPool) -> None:
    assert own_pool.run(total, 1.0) == [2.0, 2.0]
    with pytest.raises(TimeoutError, match="rank 1 has not answered within 0.2 s"):
        own_pool.run(slow_on_rank_1, 600, seconds=0.2)
    assert [own_pool.run(total, float(x)) for x in (2, 3)] == [[4.0, 4.0], [6.0, 6.0]]
    with pytest.raises(AssertionError, match="the test's own fault"):
        own_pool.run(wrong)
    assert own_pool.run(total, 4.0) == [8.0, 8.0]
    with pytest.raises(RuntimeError, match="rank 0 ended with 3 before it answered"):
        own_pool.run(gone)
    assert own_pool.run(total, 5.0) == [10.0, 10.0]


def test_a_busy_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience.os, "cpu_count", lambda: 2)
    clock, seen = patience.Patience(10), []
    for load in (6.0, 6.0, 1.0, 1.0):  # 12 s at a third of the speed, then at full speed
        monkeypatch.setattr(patience.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        now[0] += 6.0
        seen.append((clock.over, clock.left))
    assert seen == [(False, 8.0), (False, 6.0), (True, 0.0), (True, -6.0)]


@pytest.mark.slow
def test_nothing_is_composed_while_tests_are_collected() -> None:
    """Composing every method takes longer than many a test; it belongs inside the tests."""
    code = (
        "import pytest; from ssl_zoo import composing\n"
        "def refuse(*_): raise AssertionError('composed while collecting')\n"
        "composing.Composer.load = refuse\n"
        "raise SystemExit(pytest.main(['--collect-only', '-qq', '-p', 'no:cacheprovider', 'tests']))"
    )
    done = patience.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stdout[-2000:]
