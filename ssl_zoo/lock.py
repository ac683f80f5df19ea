"""A run folder has one living process that writes it: a file lock, and who holds it in ``owner.json``."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import filelock

from ssl_zoo import files
from ssl_zoo.errors import ConfigError

RUN, LAUNCHER = "run.lock", "launcher.lock"  # of the process that trains (rank 0), of the one that started it
OWNER = "owner.json"
BEAT = 60.0  # seconds between signs of life
DEAD_AFTER = 300.0  # without a sign of life a process of another host counts as dead
RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class Busy(ConfigError):
    """Another living process writes the folder."""


class Lock:
    """The right to write a run folder, until :meth:`release` or the end of the process.

    On one machine the file lock decides, which the system takes back from a dead process. A file system may have no
    such locks or keep them to each machine, so the sign of life in ``owner.json`` decides against other hosts.

    Args:
        folder: An existing folder.
        name: ``run.lock`` or ``launcher.lock``.
    """

    def __init__(self, folder: Path, name: str = RUN) -> None:
        self.folder = folder
        self._file = _file_lock(folder / name)
        self._stop = threading.Event()

    def acquire(self, sign: bool = True) -> None:
        """Take the lock and keep giving signs of life; ``sign=False``: only to see whether it is free.

        Raises:
            Busy: If another process has it; the message says who.
        """
        owner = read_owner(self.folder)
        try:
            self._file.acquire(timeout=0)
            locks = True
        except filelock.Timeout:
            raise Busy(_busy(self.folder, owner)) from None
        except NotImplementedError:
            locks = False
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            locks = False
        if owner is not None and not _is_free(owner, locks):
            self._file.release()
            raise Busy(_busy(self.folder, owner))
        if not sign:
            return
        if owner is not None and owner["host"] != _host():
            print(
                f"{self.folder}: its process {owner['pid']} on {owner['host']} has given no sign of life for "
                f"{time.time() - owner['heartbeat']:.0f} s: taken over"
            )
        self._beat()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._beat()
            except OSError as error:  # a full disk must not end the run; only other hosts read this
                print(f"{self.folder / OWNER} cannot be written ({error.strerror})", file=sys.stderr)

    def _beat(self) -> None:
        pid = os.getpid()
        me = {"host": _host(), "pid": pid, "started": _started(pid), "job": job(), "heartbeat": time.time()}
        files.write(self.folder / OWNER, json.dumps(me) + "\n")

    def release(self) -> None:
        self._stop.set()
        owner = read_owner(self.folder)
        if owner is not None and (owner["host"], owner["pid"]) == (_host(), os.getpid()):
            (self.folder / OWNER).unlink(missing_ok=True)
        self._file.release()


def check_free(folder: Path) -> None:
    """Raise :class:`Busy` if a living process writes ``folder``; nothing is held afterwards."""
    for name in (LAUNCHER, RUN):
        if (folder / name).exists() or (folder / OWNER).exists():
            lock = Lock(folder, name)
            lock.acquire(sign=False)
            lock.release()


def job() -> str | None:
    """The scheduler's job that this process belongs to; without one, the torchrun that has started it."""
    if found := os.environ.get("SLURM_JOB_ID"):
        return f"slurm {found}"
    if found := os.environ.get("TORCHELASTIC_RUN_ID"):
        return f"torchrun {found}" if found != "none" else f"torchrun {_host()}:{os.getppid()}"
    return None


def is_restarted() -> bool:
    """Whether the job has run before: its scheduler, or torchrun, has started it again."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RESTARTS)


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Who says that it writes the folder; None: nobody, or nobody that can be read."""
    try:
        owner = json.loads((folder / OWNER).read_text())
        return owner if {"host", "pid", "started", "heartbeat"} <= owner.keys() else None
    except (OSError, ValueError, AttributeError):
        return None  # a file of another program, or none: the file lock decides


def _is_free(owner: dict[str, Any], locks: bool) -> bool:
    if owner["host"] == _host():
        ours = owner["pid"] in (os.getpid(), os.getppid())  # a rank takes over from its launcher
        return locks or ours or _started(owner["pid"]) != owner["started"]
    if owner.get("job") is not None and owner["job"] == job():
        return True  # the scheduler started this job again elsewhere: its earlier processes are gone
    return time.time() - owner["heartbeat"] > DEAD_AFTER


def _busy(folder: Path, owner: dict[str, Any] | None) -> str:
    who = "another process"
    if owner is not None:
        who = f"process {owner['pid']} on {owner['host']}" + (f" ({owner['job']})" if owner.get("job") else "")
    stopped = owner is not None and owner["host"] == _host() and _state(owner["pid"]) == "T"
    return (
        f"{folder} is being written by {who}{', which is stopped (kill -CONT goes on)' if stopped else ''}; "
        "wait for it or end it, or choose another folder with hydra.run.dir=DIR"
    )


def _host() -> str:
    return socket.gethostname()


def _stat(pid: int) -> list[str]:
    """Fields of Linux's ``/proc/PID/stat`` from the third (the state) on; elsewhere, or without that process, none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the machine did: two processes with one number differ in it."""
    fields = _stat(pid)
    return fields[19] if fields else None


def _state(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[0] if fields else None


def _file_lock(path: Path) -> filelock.BaseFileLock:
    """Without filelock's fallback to a marker file, which a killed process would leave behind."""
    if int(filelock.__version__.partition(".")[0]) >= 4:
        return filelock.FileLock(path, fallback_to_soft=False)
    # Earlier versions have no such fallback, but leave an open copy of the lock to forked data workers, in which it
    # outlives a killed parent.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _close_copies(path))
    return filelock.FileLock(path)


def _close_copies(path: Path) -> None:
    try:
        wanted = os.stat(path)
    except OSError:
        return
    for name in os.listdir("/dev/fd"):
        try:
            if os.path.samestat(os.fstat(int(name)), wanted):
                os.close(int(name))
        except OSError:
            continue  # the descriptor with which the folder itself was listed
