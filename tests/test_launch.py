"""Processes of a run: cores of their own on a CPU, and one status for all."""

import os
import subprocess
import sys

import pytest

from ssl_zoo import launch
from ssl_zoo.launch import _pin


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_cores_are_shared_out_in_order_and_nobody_is_left_without(ranks):
    own = sorted(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(ranks)]
    try:
        _pin(processes)
        share = len(own) // ranks
        for i, process in enumerate(processes):
            wanted = own[i * share : (i + 1) * share] if share else own
            assert sorted(os.sched_getaffinity(process.pid)) == wanted
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (["pass", "pass"], 0),
        (["import sys; sys.exit(3)", "import time; time.sleep(600)"], 3),
        # The system's way with a process that takes too much memory; the command said that all was well.
        (["import time; time.sleep(600)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], 128 + 9),
    ],
)
def test_the_first_process_that_fails_ends_the_run_with_its_status(
    ends: list[str], wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LAST_WORDS", 1.0)
    ranks = [subprocess.Popen([sys.executable, "-c", code]) for code in ends]
    assert launch._wait(ranks) == wanted
    assert all(rank.wait(120) is not None for rank in ranks)
