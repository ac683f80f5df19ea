"""The cluster of the other tests: its steps, its jobs, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import patience
from tests.slurm.cluster import HERE, Cluster, Failed, cluster, missing

HOST = socket.gethostname().split(".")[0]
RANKS = "echo rank $SLURM_PROCID of $SLURM_STEP_NUM_TASKS"


def test_srun_starts_every_rank_and_hands_over_folder_environment_and_status(slurm: Cluster, tmp_path: Path) -> None:
    done = slurm.srun("-n", "2", "bash", "-c", f"{RANKS} in $(pwd) with $WORD", cwd=tmp_path, env={"WORD": "x"})
    assert sorted(done.stdout.splitlines()) == [f"rank {i} of 2 in {tmp_path} with x" for i in range(2)], done.stderr
    assert slurm.srun("bash", "-c", "exit 7").returncode == 7
    assert slurm.srun("-n", "2", "hostname", "-s").stdout.split() == [HOST, HOST]


def test_two_nodes_are_one_machine_under_two_names(slurm: Cluster) -> None:
    asked = "echo $SLURM_NODEID $SLURMD_NODENAME of $SLURM_JOB_NODELIST"
    done = slurm.srun("--partition=nodes", "--nodes=2", "--ntasks=2", "bash", "-c", asked)
    nodes = f"{HOST},{HOST}-second"
    assert sorted(done.stdout.splitlines()) == [f"0 {HOST} of {nodes}", f"1 {HOST}-second of {nodes}"], done.stderr


def test_a_batch_job_runs_its_steps_and_says_its_status(slurm: Cluster, tmp_path: Path) -> None:
    job = slurm.sbatch(f"srun bash -c '{RANKS}'; pwd; exit 3", "--ntasks=2", cwd=tmp_path)
    assert (job.wait(60), job.status()) == ("FAILED", 3), job.output()
    *ranks, folder = job.output().splitlines()
    assert sorted(ranks) == ["rank 0 of 2", "rank 1 of 2"] and folder == str(tmp_path)


@pytest.mark.slow
def test_a_requeued_job_starts_again_and_knows_it(slurm: Cluster) -> None:
    # Slurm kills a job at once, without SIGTERM first, that it has not seen running yet.
    script = "trap 'echo asked to end; exit 1' TERM; sleep 1; echo start ${SLURM_RESTART_COUNT:-0}; sleep 60 & wait"
    job = slurm.sbatch(script, "--requeue")
    job.says("start 0", 60)
    job.requeue()
    job.says("start 1", 60)
    job.cancel()
    assert job.wait(60) == "CANCELLED" and job.restarts() == 1
    said = [line for line in job.output().splitlines() if not line.startswith("slurmstepd")]
    assert said == ["start 0", "asked to end", "start 1", "asked to end"]


def test_waiting_for_words_that_never_come_fails_with_what_was_said(slurm: Cluster) -> None:
    job = slurm.sbatch("echo hello")
    with pytest.raises(Failed, match=rf"job {job.id} \(COMPLETED\) has not said 'bye':\nhello"):
        job.says("bye", 60)


@pytest.mark.slow
def test_a_signal_comes_before_the_end_of_the_time_limit(slurm: Cluster) -> None:
    script = "trap 'echo nearly over; exit 0' USR1; echo started; sleep 120 & wait"
    job = slurm.sbatch(script, "--time=1", "--signal=B:USR1@55")  # of 60 s; up to a minute early
    assert job.wait(90) == "COMPLETED"
    assert job.output().startswith("started\nnearly over\n")


@pytest.mark.slow  # Slurm counts in minutes
def test_the_time_limit_ends_a_job_that_does_not_hear(slurm: Cluster) -> None:
    job = slurm.sbatch("trap '' USR1; sleep 600", "--time=1", "--signal=B:USR1@30")
    assert job.wait(240) == "TIMEOUT"


@pytest.mark.slow  # half a minute, which Slurm leaves a job that does not hear
def test_a_test_leaves_no_job_behind(slurm: Cluster, tmp_path: Path) -> None:
    said = tmp_path / "number"
    job = slurm.sbatch(f"trap '' TERM; echo $$ > {said}; sleep 600; sleep 600")
    patience.until(lambda: said.exists() and said.read_text(), 60)
    slurm.cancel_all()
    assert job.state() == "CANCELLED" and not _lives(int(said.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_cluster_ends_with_who_started_it_and_two_live_side_by_side(
    slurm: Cluster, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "tests.slurm.cluster"]
    with subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        place = other.stdout.readline().strip().partition("=")[2]
        run = Cluster(Path(place).parent, slurm.nodes)
        said = tmp_path / "number"
        run.sbatch(f"trap '' TERM; echo $$ > {said}; sleep 600; sleep 600")
        patience.until(lambda: said.exists() and said.read_text(), 60)
        assert slurm.ask("squeue", "--noheader") == "" and len(run.ask("squeue", "--noheader").splitlines()) == 1
        other.send_signal(number)
    patience.until(lambda: not _lives(int(said.read_text())), 60)
    patience.until(lambda: place not in _commands() and not run.folder.exists(), 60)


def test_the_reason_for_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith("slurm") else name)
    assert missing() == "slurmctld, slurmd: not installed; apt-get install slurm-wlm munge"
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert missing() is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing() == "the daemons of a Slurm cluster are started by root"


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_daemon_that_cannot_start_is_told_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.slurm.cluster.CONFIGURATION", "ClusterName=tests\n")
    said = r"'slurm(ctld|d)'.* ended with status 1\n[\s\S]*== slurmctld.out\n.*SlurmctldHost"
    with pytest.raises(Failed, match=said):
        with cluster():
            pass


def _lives(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


def _commands() -> str:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_text())
        except OSError:  # it has just ended
            continue
    return "\n".join(found)
