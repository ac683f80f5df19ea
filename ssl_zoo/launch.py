"""Who trains: this process, alone or with others that a launcher has started, or ranks that it starts on this node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_zoo import files, machine, runs, worker
from ssl_zoo.callbacks.checkpoint import INTERRUPTED, TERMINATED, Terminated
from ssl_zoo.config import identity, plain
from ssl_zoo.errors import ConfigError
from ssl_zoo.lock import LAUNCHER, RUN, Lock, check_free
from ssl_zoo.rendezvous import Meeting
from ssl_zoo.trainer import devices_of

PASSED_ON = machine.signals(*worker.STOPPING)
LAST_WORDS = 10.0  # seconds in which the other ranks say why they end, too


def execute(
    cfg: DictConfig,
    folder: Path,
    record: runs.Record,
    built: tuple[Any, Any] | None,
    meeting: Meeting | None = None,
) -> tuple[int, worker.Trained | None]:
    """Write configuration and record, train, and write how it ended; the caller holds the folder's lock.

    Args:
        cfg: With ``run_dir`` and ``resume`` filled in.
        folder: Of the run.
        record: Of the run, in the state ``running``.
        built: What :func:`ssl_zoo.worker.build_run` gave; None: ranks build for themselves.
        meeting: Of the ranks that a launcher has started, of which this is rank 0; None: there are none.

    Returns:
        The exit status, and what the training left if it was done in this process and came to its end.

    Raises:
        Terminated, ConfigError: As :func:`ssl_zoo.worker.run`, if it was done in this process.
    """
    files.write(folder / runs.CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain(cfg))))
    record.write(folder)
    if meeting is not None:
        meeting.tell(worker.word(cfg, folder, record))
    if not starts(cfg, meeting):
        return 0, worker.lead(cfg, folder, record, built, meeting)
    status = launch(cfg, folder)
    ended = runs.read_record(folder)
    if status and ended is not None and ended.state == "running":  # rank 0 could not say how
        ended.state, ended.reason = "failed", f"a process of the run ended with status {status}"
        ended.write(folder)
    return status, None


def processes(cfg: DictConfig) -> int:
    """Of a run, over all nodes."""
    return devices_of(cfg) * int(cfg.trainer.num_nodes)


def starts(cfg: DictConfig, meeting: Meeting | None) -> bool:
    """Whether ranks are to be started, which train in the place of this process."""
    return meeting is None and processes(cfg) > 1


def lock(cfg: DictConfig, folder: Path, meeting: Meeting | None = None) -> Lock:
    """The right to write ``folder`` as long as ranks or this process train there.

    Raises:
        Busy: If another process has it.
    """
    check_free(folder)
    found = Lock(folder, LAUNCHER if starts(cfg, meeting) else RUN)  # rank 0 takes the other one
    found.acquire()
    return found


def train_in(
    folder: Path,
    cfg: DictConfig,
    prepare: Callable[[], None] = lambda: None,
    check: Callable[[Any], None] = lambda method: None,
) -> worker.Trained | None:
    """Train in a folder that belongs to one purpose: begin, go on with what was interrupted, or find it finished.

    What another configuration has left there is removed.

    Args:
        folder: Its place.
        cfg: Checked configuration; ``run_dir`` and ``resume`` are filled in.
        prepare: Called before a run that begins.
        check: Called with the method of a run that begins, before its first step.

    Returns:
        What the training left in this process; None: it was finished already, or other processes trained.

    Raises:
        Terminated, Busy, ConfigError: As :func:`execute`; also if processes that were started have failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(cfg, folder)
    try:
        found = runs.candidates([folder], identity(plain(cfg)))
        if found and found[0].record.state == "finished":
            print(f"{folder} is finished already")
            return None
        last = found[0].last if found else None
        if last is None:
            runs.clear(folder)
            prepare()
        cfg.run_dir, cfg.resume = str(folder), None if last is None else str(last)
        built = worker.build_run(cfg)
        if last is None:
            check(built[0])
        new = {"data": built[1].fingerprint(), "decisions": built[1].decisions}
        record = found[0].record if found else runs.Record.begin(plain(cfg), **new)
        record.state = "running"
        status, trained = execute(cfg, folder, record, built)
    finally:
        held.release()
    if status in (TERMINATED, INTERRUPTED):
        raise Terminated(f"stopped; the same command goes on in {folder}", status=status)
    if status:
        raise ConfigError(f"the training in {folder} ended with status {status}; its processes have said why")
    return trained


def launch(cfg: DictConfig, run_dir: Path) -> int:
    """Train in one process per device of this node."""
    command = [sys.executable, "-m", "ssl_zoo.worker", str(run_dir)]
    return start_here(command, devices_of(cfg), cfg.trainer.accelerator)


def start_here(command: list[str], devices: int, accelerator: str) -> int:
    """:func:`start` all ranks there are on this node, which meet at a port that is free."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(devices)}
    return start(command, devices, 0, meet, accelerator)


def start(command: list[str], devices: int, first: int, meet: dict[str, str], accelerator: str) -> int:
    """Start ``command`` as the ranks of this node, and wait for them; the first that fails ends the others.

    Args:
        command: Of a rank.
        devices: How many.
        first: Rank of the first of them.
        meet: What all ranks have in their environment.
        accelerator: ``cpu``: each rank gets cores of its own.

    Returns:
        The exit status.
    """
    # What another launcher has said is not of these ranks.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "TORCHELASTIC"))}
    environment |= meet
    if "OMP_NUM_THREADS" not in environment and accelerator == "cpu":
        environment["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // devices, 1))
    # In a session of their own: Ctrl-C reaches this process alone, which passes it on once.
    ranks = [
        subprocess.Popen(
            command, env={**environment, "LOCAL_RANK": str(i), "RANK": str(first + i)}, start_new_session=True
        )
        for i in range(devices)
    ]
    if accelerator == "cpu":
        _pin(ranks)
    return _wait(ranks)


def _pin(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Give every process cores of its own, with its data workers.

    Left to the system, two processes on two cores move between them: 358 ms a step, 289 pinned (width 16, 128 rows
    each).
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = len(cores) // len(ranks)
    for i, process in enumerate(ranks):
        if share and process.poll() is None:
            os.sched_setaffinity(process.pid, cores[i * share : (i + 1) * share])


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Exit code of the run: 0 when all ranks end well, else the first failure's; signals reach every rank.

    A process that a signal ended counts as 128 plus the signal's number, as in a shell: never as a success.
    """

    def pass_on(number: int, frame: Any) -> None:
        for rank in ranks:
            rank.send_signal(number)

    held = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        while True:
            codes = [rank.poll() for rank in ranks]
            failed = [code for code in codes if code]
            if failed:
                end = time.monotonic() + LAST_WORDS
                while time.monotonic() < end and any(rank.poll() is None for rank in ranks):
                    time.sleep(0.05)
                return failed[0] if failed[0] > 0 else 128 - failed[0]
            if all(code == 0 for code in codes):
                return 0
            time.sleep(0.1)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
        for number, handler in held.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
