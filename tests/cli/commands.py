"""Commands as a user types them, each in a process of its own that is forked from one which has imported everything.

A start from nothing costs seconds; tests of what several starts do to one another need dozens.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.patience import is_in_time

TINY = [
    "data=synthetic", "data.source.samples=48", "data.source.val_samples=16", "data.image_size=16", "data.batch_size=8",
    "backbone.width=8", "method.projector.hidden=[8]", "method.projector.out_features=8", "trainer.max_epochs=2",
    "trainer.log_every=1", "trainer=cpu", "report=false", "logger=csv",
]  # fmt: skip
PLAIN = mp.get_start_method()
_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.cli.commands", "ssl_zoo.training", "ssl_zoo.evaluation.run", "ssl_zoo.knn"])


class Done(NamedTuple):
    """How a command ended; -9 for a process that SIGKILL ended, as subprocess has it."""

    code: int
    out: str
    err: str


class Running:
    """A command that runs."""

    def __init__(self, process: Any, streams: Path) -> None:
        self.process = process
        self.streams = streams

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> Done:
        if not is_in_time(self._has_ended, seconds):
            self.process.kill()
            raise TimeoutError(f"{self.text('out')}\n{self.text('err')}\nstill runs after {seconds} s")
        return Done(self.process.exitcode, self.text("out"), self.text("err"))

    def _has_ended(self, step: float) -> bool:
        self.process.join(step)
        return self.process.exitcode is not None

    def text(self, stream: str) -> str:
        return (self.streams / stream).read_text()


def _serve(words: list[str], cwd: str, streams: str, environment: Mapping[str, str], first: Callable[[], None]) -> None:
    os.environ.update(environment)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    mp.set_start_method(PLAIN, force=True)  # children of a fork server inherit its way of starting processes
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{streams}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    from ssl_zoo import cli

    first()
    sys.argv = ["ssl-zoo"]
    try:
        status = cli.entry(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def nothing() -> None:
    """What a command does before it starts, unless a test wants more."""


def start(*words: str, cwd: Path, first: Callable[[], None] = nothing, **environment: str) -> Running:
    """``ssl-zoo WORDS`` in the folder ``cwd``; ``first()`` is called in its process before."""
    streams = cwd / ".streams" / f"{time.monotonic_ns()}"
    streams.mkdir(parents=True)
    arguments = (list(words), str(cwd), str(streams), environment, first)
    process = _CONTEXT.Process(target=_serve, args=arguments)  # type: ignore[attr-defined]
    process.start()
    for name in ("out", "err"):
        (streams / name).touch()
    return Running(process, streams)


def run(*words: str, cwd: Path, first: Callable[[], None] = nothing, **environment: str) -> Done:
    return start(*words, cwd=cwd, first=first, **environment).wait()


def train(*words: str, cwd: Path, first: Callable[[], None] = nothing) -> Done:
    """A tiny training."""
    return run("train", *TINY, *words, cwd=cwd, first=first)


def kill_at(step: int, name: str = "SIGKILL") -> str:
    """The word that makes a training send itself a signal after a step."""
    assert name in signal.Signals.__members__
    return f"+callbacks.kill={{_target_: tests.cli.kill.Kill, step: {step}, signal_name: {name}}}"
