"""Processes of a run on a CPU get cores of their own."""

import os
import subprocess
import sys

import pytest

from ssl_zoo.worker import _pin


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_cores_are_shared_out_in_order_and_nobody_is_left_without(ranks):
    own = sorted(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) for _ in range(ranks)]
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
