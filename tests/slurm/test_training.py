"""The training command on a real Slurm: every way to start two processes, jobs that are requeued, and sweeps."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import patience
from tests.cli.test_runs import assert_same
from tests.cli.test_runs import weights as with_probe
from tests.launching.starts import TRAIN
from tests.launching.test_starts import METHODS, WORDS, assert_close, of_one, words
from tests.slurm.cluster import Cluster, Job

ONE = "OMP_NUM_THREADS=1"
Start = Callable[[Cluster, list[str], Path], "tuple[int, str]"]

pytestmark = pytest.mark.slow
__all__ = ["of_one"]  # a fixture


def command(given: list[str]) -> str:
    return " ".join(["exec", sys.executable, TRAIN, *(f"'{word}'" for word in given)])


def after(job: Job) -> tuple[int, str]:
    job.wait(600)
    return job.status(), job.output()


def srun(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    done = slurm.srun("-n", "2", sys.executable, TRAIN, *given, cwd=cwd, env={"OMP_NUM_THREADS": "1"})
    return done.returncode, done.stdout + done.stderr


def srun_on_two_nodes(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    done = slurm.srun("-p", "nodes", "-N", "2", "--ntasks-per-node=1", sys.executable, TRAIN, *given, cwd=cwd,
                      env={"OMP_NUM_THREADS": "1"})  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def sbatch_with_one_task(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    return after(slurm.sbatch(command([*given, "trainer.devices=2"]), "--ntasks=1", "--cpus-per-task=2", cwd=cwd))


def sbatch_with_two_tasks_without_srun(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    return after(slurm.sbatch(command([*given, "trainer.devices=2"]), "--ntasks-per-node=2", cwd=cwd))


def sbatch_with_srun(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    script = f"export {ONE}\nsrun {command(given).removeprefix('exec ')}"
    return after(slurm.sbatch(script, "--ntasks-per-node=2", cwd=cwd))


def torchrun_in_sbatch(slurm: Cluster, given: list[str], cwd: Path) -> tuple[int, str]:
    from tests.launching.starts import TORCHRUN, free_port

    agent = [*TORCHRUN, "--nproc_per_node=2", f"--master-port={free_port()}", TRAIN, *(f"'{word}'" for word in given)]
    return after(slurm.sbatch(f"export {ONE}\nsrun -n 1 {' '.join(agent)}", "--ntasks=1", "--cpus-per-task=2", cwd=cwd))


STARTS: dict[str, Start] = {
    start.__name__: start
    for start in (srun, srun_on_two_nodes, sbatch_with_one_task, sbatch_with_two_tasks_without_srun, sbatch_with_srun,
                  torchrun_in_sbatch)
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", STARTS)
def test_one_run_with_the_weights_of_one_process(
    start: str, method: str, slurm: Cluster, tmp_path: Path, of_one: dict[str, dict[str, torch.Tensor]]
) -> None:
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"of another program")  # Lightning would start from it
    status, said = STARTS[start](slurm, words(method), tmp_path)
    assert status == 0, said
    assert_close(tmp_path / "run", of_one[method])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hpc_ckpt_1.ckpt", "run"]
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["state"] == "finished" and re.fullmatch(r"slurm \d+", record["job"])
    assert said.count("checkpoint     ") == 1 and "hpc_ckpt" not in said


def test_several_nodes_without_srun_are_refused_with_the_line_that_works(slurm: Cluster, tmp_path: Path) -> None:
    script = command([*words("simclr"), "trainer.num_nodes=2"])
    status, said = after(slurm.sbatch(script, "-p", "nodes", "-N", "2", "--ntasks-per-node=1", cwd=tmp_path))
    assert status == 1 and "srun -N 2 --ntasks-per-node=1 ssl-zoo train" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


LONG = [word for word in WORDS if not word.startswith(("hydra.run.dir", "trainer.max_epochs"))]
WAIT = "+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 0.1}"
RUNS = "outputs/simclr/synthetic"


def long(*more: str) -> list[str]:
    """120 steps that take 12 seconds at least, in a folder named by the time."""
    return ["method=simclr", *LONG, *METHODS["simclr"], "trainer.max_epochs=24", *more]


def rows(run: Path) -> list[dict[str, str]]:
    found = list(csv.DictReader((run / "metrics.csv").open()))
    return [{key: value for key, value in row.items() if not key.startswith("throughput")} for row in found]


def run_of(place: Path) -> Path:
    (record,) = (place / RUNS).glob("*/run.json")  # a start that goes on with it has a folder of its own for a moment
    return record.parent


def steps(place: Path) -> int:
    """How many steps the one run below a folder has noted."""
    found = list((place / RUNS).glob("*/metrics.csv"))
    noted = re.findall(r"^\d+,(\d+),", found[0].read_text(), re.MULTILINE) if found else []
    return int(noted[-1]) if noted else 0


@pytest.mark.parametrize("with_srun", [False, True])
def test_a_job_that_is_requeued_three_times_is_one_run(with_srun: bool, slurm: Cluster, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    own, start = ([], "srun ") if with_srun else (["trainer.devices=2"], "exec ")
    whole_script, script = (
        f"export {ONE}\n{start}{command(long(*own, *more)).removeprefix('exec ')}" for more in ([], [WAIT])
    )
    status, said = after(slurm.sbatch(whole_script, "--ntasks=2", cwd=whole))
    assert status == 0, said
    job = slurm.sbatch(script, "--ntasks=2", "--requeue", cwd=cut)
    for i in range(3):
        patience.until(lambda i=i: steps(cut) >= 25 * (i + 1), 300)  # type: ignore[misc]
        job.requeue()
        job.says(f"saved {run_of(cut)}/checkpoints/last.ckpt", 60)
    assert job.wait(600) == "COMPLETED" and job.restarts() == 3, job.output()
    assert job.output().count("this job was started again (slurm") == 3, job.output()
    assert list((cut / RUNS).iterdir()) == [run_of(cut)]
    assert_same(with_probe(run_of(cut)), with_probe(run_of(whole)))
    assert rows(run_of(cut)) == rows(run_of(whole))
    record = json.loads((run_of(cut) / "run.json").read_text())
    assert [piece["step"] > 0 for piece in record["pieces"]] == [False, True, True, True]
    assert record["state"] == "finished"


def test_the_end_of_the_time_limit_saves_and_says_so(slurm: Cluster, tmp_path: Path) -> None:
    given = long("+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 1.0}", "trainer.max_epochs=1000")
    job = slurm.sbatch(f"srun {command(given).removeprefix('exec ')}", "--time=2", "--signal=USR1@60", cwd=tmp_path)
    job.wait(300)
    assert job.status() == 143 and "stopped by SIGUSR1 after step" in job.output(), job.output()
    record = json.loads((run_of(tmp_path) / "run.json").read_text())
    assert record["state"] == "interrupted" and record["reason"].startswith("SIGUSR1 after step")


def test_requeue_starts_the_job_again_until_the_run_is_done(slurm: Cluster, tmp_path: Path) -> None:
    job = slurm.sbatch(command(long(WAIT, "requeue=true", "trainer.max_time=00:00:07")), "--ntasks=1", cwd=tmp_path)
    assert job.wait(600) == "COMPLETED" and job.restarts() >= 1, job.output()
    assert f"requeue=true: Slurm starts job {job.id} again" in job.output()
    assert json.loads((run_of(tmp_path) / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_a_sweep_through_submitit_of_which_one_job_fails(launcher: str, slurm: Cluster, tmp_path: Path) -> None:
    given: list[Any] = [word for word in words("moco_v2") if not word.startswith(("method.queue_size", "hydra.run"))]
    given += ["trainer.max_epochs=1", "-m", "method.queue_size=16,100", f"hydra/launcher=submitit_{launcher}",
              "hydra.sweep.dir=sweep", "hydra.launcher.timeout_min=10"]  # fmt: skip
    given += ["hydra.launcher.mem_gb=null", "hydra.launcher.cpus_per_task=1"] if launcher == "slurm" else []
    done = slurm.run(sys.executable, TRAIN, *given, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}, seconds=600)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 jobs failed: #1 (method.queue_size=100)" in done.stderr, done.stderr
    (finished,) = (tmp_path / "sweep").glob("*/run.json")
    assert json.loads(finished.read_text())["state"] == "finished"


def test_a_job_of_submitit_that_is_told_to_go_is_requeued_by_it_and_goes_on(slurm: Cluster, tmp_path: Path) -> None:
    """Slurm sends what submitit asks for, SIGUSR2, before the time is up, or where another job has precedence."""
    given = [*long(WAIT), "-m", "hydra/launcher=submitit_slurm", "hydra.sweep.dir=sweep", "hydra.launcher.mem_gb=null",
             "hydra.launcher.timeout_min=60", "hydra.launcher.cpus_per_task=1"]  # fmt: skip

    def noted() -> int:
        found = list((tmp_path / "sweep").glob("*/metrics.csv"))
        return int((re.findall(r"^\d+,(\d+),", found[0].read_text(), re.MULTILINE) or [0])[-1]) if found else 0

    with ThreadPoolExecutor(1) as pool:
        sweep = pool.submit(
            slurm.run, sys.executable, TRAIN, *given, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"}, seconds=900
        )
        patience.until(lambda: noted() >= 25, 300)
        (job,) = slurm.ask("squeue", "--noheader", "--format=%A").split()
        slurm.ask("scancel", "--signal=USR2", job)
        patience.until(lambda: Job(slurm, int(job)).restarts() == 1, 60)
        done = sweep.result()
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (tmp_path / "sweep").glob("*/run.json")
    found = json.loads(record.read_text())
    assert found["state"] == "finished" and [piece["step"] > 0 for piece in found["pieces"]] == [False, True]
