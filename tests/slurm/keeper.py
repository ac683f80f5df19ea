"""Keeps the daemons of one cluster: starts them, and ends them and all that they started when its input closes.

A process of its own between the tests and the daemons, because a step of Slurm outlives the daemon that started it, and
tests can be killed: however they end, the pipe to this process closes. Orphans of the cluster become its children.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from ssl_zoo import machine

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h
STOPPED_BY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE = 5.0  # seconds between asking a daemon to end and killing it


def daemons(folder: Path, nodes: list[str]) -> dict[str, list[str]]:
    """Their names and commands, in the order of their start; the files that they name lie in ``folder``."""
    munge = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
    files = [f"--{option}={folder / name}" for option, name in munge.items()]
    slurm = ["-D", "-f", str(folder / "slurm.conf")]
    return {
        "munged": ["munged", "--foreground", "--force", "--origin=127.0.0.1", *files],
        "slurmctld": ["slurmctld", *slurm],
        **{f"slurmd-{node}": ["slurmd", *slurm, "-N", node] for node in nodes},
    }


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    with open(out, "ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=machine.die_with_parent
        )


def children() -> list[int]:
    """Of this process, by number; the system's list of them is not in every kernel."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = entry.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        if int(parent) == os.getpid():
            found.append(int(entry.parent.name))
    return found


def end(started: list[subprocess.Popen[bytes]]) -> None:
    """Ask the daemons, the last one first, then kill what is left until nothing is."""
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
    while left := children():
        for number in left:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)  # its own children are ours then


def main(folder: Path, nodes: list[str]) -> None:
    starter = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def stop(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    for number in STOPPED_BY:
        signal.signal(number, stop)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in daemons(folder, nodes).items():
            started.append(start(command, folder / f"{name}.out"))
        daemon = {process.pid: process for process in started}
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in daemon:
                    sys.exit(f"{daemon[ended.si_pid].args} ended with status {daemon[ended.si_pid].wait()}")
                os.waitpid(ended.si_pid, 0)  # an orphan of a job
    finally:
        for number in STOPPED_BY:
            signal.signal(number, signal.SIG_IGN)
        end(started)
        if os.getppid() != starter:  # it could not clean up
            shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
