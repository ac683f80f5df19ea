"""A real Slurm cluster on this machine: ports, keys and files of its own, on loopback, no accounting.

In a test below ``tests/slurm`` ask for the fixture ``slurm``, a :class:`Cluster` that lives as long as the tests::

    def test_two_ranks(slurm: Cluster, tmp_path: Path) -> None:
        done = slurm.srun("-n", "2", sys.executable, "train.py", "trainer=ddp", cwd=tmp_path)    # waits; never raises
        assert done.returncode == 0, done.stderr

        job = slurm.sbatch("srun python train.py method=byol", "--ntasks=2", cwd=tmp_path)      # a script's lines
        job.says("epoch 1")             # waits for words in its output; fails the test if it ends without them
        job.requeue()                   # and it starts again, with SLURM_RESTART_COUNT=1, in some six seconds
        assert job.wait(300) == "COMPLETED" and job.restarts() == 1, job.output()

Seconds are those of an idle machine. The environment of the commands is this process's without another Slurm's words,
plus ``SLURM_CONF`` and what ``env={...}`` adds. After each test its jobs are cancelled.

The cluster has one node of two CPUs named as this host. ``-p nodes`` is a partition that has a second node, for
``srun -p nodes -N 2``: the same machine, whose files both see, with a name that no name server knows.

By hand: ``python -m tests.slurm.cluster`` starts one, prints its ``SLURM_CONF`` and stops it at the end of its input.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import patience

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")
HERE = Path(__file__).parents[2]
CPUS = 2  # of a node, however many the machine has
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
STARTS = 3  # tries: another program can take a port before the daemon does
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is requeued waits as long as the permission to start its steps lasts; the usual value is 120 s.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MessageTimeout=60
# Jobs stay known as long as the cluster lives.
MinJobAge=86400
{nodes}
PartitionName=one Nodes={host} Default=YES MaxTime=INFINITE
PartitionName=nodes Nodes=ALL MaxTime=INFINITE
"""


def missing() -> str | None:
    """Why no cluster can be started here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed; apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "the daemons of a Slurm cluster are started by root"


class Failed(Exception):
    """What was asked of the cluster did not happen; carries what its daemons or the job said."""


class Ended(Failed):
    """A daemon ended at its start."""


@dataclass
class Cluster:
    """One that runs; made by :func:`cluster`."""

    folder: Path
    nodes: tuple[str, str]

    def environment(self, added: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's, for this cluster, with the programs of this Python first."""
        foreign = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SQUEUE", "SINFO")
        own = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        found = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
        path = os.pathsep.join(filter(None, [str(HERE), own.get("PYTHONPATH")]))
        here = {"PATH": found, "PYTHONPATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}
        return {**own, **here, **(added or {})}

    def srun(self, *words: str, seconds: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
        """``srun WORDS`` to its end, whatever its status."""
        return self.run("srun", *words, seconds=seconds, **options)

    def run(
        self, *command: str, seconds: float = 300, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Any command that is to see the cluster, to its end; it has no input."""
        return patience.run(command, seconds, env=self.environment(env), stdin=subprocess.DEVNULL, **options)

    def ask(self, *command: str) -> str:
        """What ``scontrol``, ``squeue`` and the like print; they must end well."""
        done = self.run(*command, seconds=60)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr}{self.logs()}")
        return done.stdout

    def sbatch(self, script: str, *options: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Job:
        """Submit the lines of ``script`` (bash, unless it names another interpreter) from the folder ``cwd``."""
        jobs = self.folder / "jobs"
        place = Path(tempfile.mkstemp(suffix=".sh", dir=jobs)[1])
        place.write_text(script if script.startswith("#!") else f"#!/bin/bash\n{script}\n")
        # What a job said before it was requeued stays.
        own = ("--parsable", f"--output={jobs}/%j.out", "--open-mode=append")
        done = self.run("sbatch", *own, *options, str(place), seconds=60, cwd=cwd or jobs, env=env)
        if done.returncode:
            raise Failed(f"sbatch {' '.join(options)}: {done.stderr}{self.logs()}")
        return Job(self, int(done.stdout.split(";")[0]))

    def cancel_all(self) -> None:
        """Every job, and wait until their processes are gone."""
        if not self.ask("squeue", "--noheader", "--format=%A"):
            return
        self.ask("scancel", "--user=root")
        patience.until(lambda: not self.ask("squeue", "--noheader", "--format=%A"), seconds=90)

    def logs(self, lines: int = 20) -> str:
        """The last lines of what each daemon wrote."""
        tails = {file.name: file.read_text(errors="replace").splitlines() for file in self.folder.glob("*.out")}
        return "".join("\n".join([f"\n== {name}", *tails[name][-lines:]]) for name in sorted(tails))


@dataclass
class Job:
    """A batch job of a cluster."""

    cluster: Cluster = field(repr=False)
    id: int

    def fields(self) -> dict[str, str]:
        """What ``scontrol show job`` knows: JobState, Restarts, ExitCode, StdOut, ..."""
        words = self.cluster.ask("scontrol", "show", "job", "--oneliner", str(self.id)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, ..."""
        return self.fields()["JobState"]

    def restarts(self) -> int:
        """How often it was requeued."""
        return int(self.fields()["Restarts"])

    def status(self) -> int:
        """The exit status of the script, as a shell tells it."""
        code, _, number = self.fields()["ExitCode"].partition(":")
        return int(code) or (128 + int(number) if int(number) else 0)

    def output(self) -> str:
        """Both streams of all its starts so far."""
        place = Path(self.fields()["StdOut"])
        return place.read_text(errors="replace") if place.exists() else ""

    def says(self, words: str, seconds: float = 300) -> None:
        """Wait until ``words`` stand in its output.

        Raises:
            Failed: If it ends without them, or has not said them in time.
        """
        clock = patience.Patience(seconds)
        while True:
            ended = self.state() in ENDED
            if words in self.output():
                return
            if ended or clock.over:
                raise Failed(f"job {self.id} ({self.state()}) has not said {words!r}:\n{self.output()}")
            time.sleep(0.1)

    def wait(self, seconds: float = 300) -> str:
        """Wait for its end and return the state.

        Raises:
            Failed: If it does not end in time.
        """
        clock = patience.Patience(seconds)
        while (state := self.state()) not in ENDED:
            if clock.over:
                raise Failed(f"job {self.id} is {state} after {seconds} s:\n{self.output()}")
            time.sleep(0.2)
        return state

    def requeue(self) -> None:
        """End its processes (SIGTERM, 30 s, SIGKILL), as a site does that needs the node, and let it start again."""
        self.cluster.ask("scontrol", "requeue", str(self.id))

    def cancel(self) -> None:
        self.cluster.ask("scancel", str(self.id))


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, and stop it however the block ends.

    Raises:
        Failed: If it does not come up; with the last lines of its daemons.
    """
    for attempt in range(STARTS):
        with tempfile.TemporaryDirectory(prefix="slurm-") as name:
            try:
                keeper, found = _start(Path(name))
            except Ended:
                if attempt == STARTS - 1:
                    raise
                continue
            try:
                yield found
            finally:
                _stop(keeper)
            return


def _start(folder: Path) -> tuple[subprocess.Popen[str], Cluster]:
    host = socket.gethostname().split(".")[0]
    found = Cluster(folder, (host, f"{host}-second"))
    for name in ("state", "jobs"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    controller, *ports = _free_ports(1 + len(found.nodes))
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS}"
        for node, port in zip(found.nodes, ports, strict=True)
    ]
    settings = {"host": host, "controller": controller, "folder": folder, "nodes": "\n".join(nodes)}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
    # In a session of its own: Ctrl-C ends the tests, and their end ends the cluster.
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.keeper", str(folder), *found.nodes],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE, start_new_session=True,
    )  # fmt: skip
    try:
        _meet(found, keeper)
    except BaseException:
        _stop(keeper)
        raise
    return keeper, found


def _meet(found: Cluster, keeper: subprocess.Popen[str]) -> None:
    """Wait until every node waits for work."""
    clock = patience.Patience(60)
    while True:
        seen = found.run("sinfo", "--noheader", "--Node", "--format=%N %T", seconds=60).stdout.split("\n")
        if set(filter(None, seen)) == {f"{node} idle" for node in found.nodes}:
            return
        if keeper.poll() is not None:
            assert keeper.stderr is not None
            raise Ended(f"{keeper.stderr.read()}{found.logs()}")
        if clock.over:
            raise Failed(f"the nodes are {seen} after 60 s{found.logs()}")
        time.sleep(0.1)


def _stop(keeper: subprocess.Popen[str]) -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()
    try:
        keeper.wait(60)
    except subprocess.TimeoutExpired:
        keeper.kill()
        raise


def _free_ports(number: int) -> Sequence[int]:
    """Of this machine, different from one another."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster() as running:
        print(f"export SLURM_CONF={running.folder / 'slurm.conf'}", flush=True)
        sys.stdin.read()
