"""All the ways to start a training on two processes, as functions that start it and wait: what is typed, and where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests import patience
from tests.test_rendezvous import free_port

ROOT = Path(__file__).parents[2]
TRAIN, EVALUATE = str(ROOT / "train.py"), str(ROOT / "evaluate.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL", "MASTER", "NODE_RANK", "GROUP", "TORCHELASTIC", "SLURM")
Done = subprocess.CompletedProcess[str]


def environment(added: Mapping[str, str] | None = None) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(OF_LAUNCHERS)}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(added or {})}


def together(commands: Sequence[tuple[Sequence[str], Path, Mapping[str, str]]], seconds: float = 300) -> list[Done]:
    """Commands at one time, each in a folder of its own and with an environment of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(commands)) as pool:
        jobs = [pool.submit(patience.run, command, seconds, cwd=cwd, env=environment(added))
                for command, cwd, added in commands]  # fmt: skip
        return [job.result() for job in jobs]


def alone(words: Sequence[str], cwd: Path, script: str = TRAIN) -> list[Done]:
    return together([([sys.executable, script, *words], cwd, {})])


def ourselves(words: Sequence[str], cwd: Path) -> list[Done]:
    return together([([sys.executable, TRAIN, *words, "trainer.devices=2"], cwd, {})])


def torchrun(words: Sequence[str], cwd: Path, script: str = TRAIN) -> list[Done]:
    command = [*TORCHRUN, "--nproc_per_node=2", f"--master-port={free_port()}", script, *words]
    return together([(command, cwd, {})])


def torchrun_with_numbers(words: Sequence[str], cwd: Path) -> list[Done]:
    """The numbers typed twice, as people do."""
    return torchrun([*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"], cwd)


def two_agents(words: Sequence[str], cwd: Path) -> list[Done]:
    """Two nodes, of which the second works elsewhere and cannot see the run folder."""
    port = free_port()
    agent = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}",
             f"--rdzv_id={port}", TRAIN, *words]  # fmt: skip
    elsewhere = cwd.parent / f"{cwd.name}-second-node"
    elsewhere.mkdir()
    return together([(agent, cwd, {}), (hidden(agent, cwd), elsewhere, {})])


def hidden(command: Sequence[str], folder: Path) -> list[str]:
    """The command in a view of the disk in which ``folder`` is empty and cannot be written."""
    if os.geteuid() or shutil.which("unshare") is None:
        return list(command)
    return ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none "$0" && exec "$@"', str(folder), *command]


def variables(words: Sequence[str], cwd: Path) -> list[Done]:
    """What a scheduler of one's own sets."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    each = [{**meet, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(2)]
    return together([([sys.executable, TRAIN, *words], cwd, added) for added in each])


def by_hand(words: Sequence[str], cwd: Path) -> list[Done]:
    """The same command typed on two nodes."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, TRAIN, *words, "trainer.num_nodes=2"]
    return together([(command, cwd, {**meet, "NODE_RANK": str(i)}) for i in range(2)])


STARTS: dict[str, Callable[[Sequence[str], Path], list[Done]]] = {
    start.__name__: start for start in (ourselves, torchrun, torchrun_with_numbers, two_agents, variables, by_hand)
}
