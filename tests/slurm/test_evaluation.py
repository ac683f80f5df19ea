"""``evaluate.py`` under srun: two tasks of one node, and two nodes, say what one process says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.launching.starts import EVALUATE
from tests.launching.test_evaluation import assert_same, given, trained
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slow
__all__ = ["trained"]  # a fixture


@pytest.mark.parametrize("places", [["-n", "2"], ["-p", "nodes", "-N", "2", "--ntasks-per-node=1"]], ids=["one", "two"])
def test_srun_judges_as_one_process(places: list[str], slurm: Cluster, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    done = slurm.srun(*places, sys.executable, EVALUATE, *given("knn", tmp_path, "two.json"), cwd=tmp_path,
                      env={"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same("knn", tmp_path, [done.stdout])
