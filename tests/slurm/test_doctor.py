from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster


@pytest.mark.slow
def test_srun_is_examined_on_two_nodes(slurm: Cluster, tmp_path: Path) -> None:
    done = slurm.srun("-p", "nodes", "-N", "2", "-n", "2", "ssl-zoo", "doctor", "out=runs", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 on 1 host ({socket.gethostname()}), started by srun\n" in done.stdout  # one machine, twice
    assert "gather         its gradients are those of one process" in done.stdout
    assert "weights        equal on all 2 processes after two steps\n" in done.stdout
    assert done.stdout.count("Verdict: ") == 1
