"""Clocks and memory: alternating runs, a fresh process for every peak, and what the machine is."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ssl_zoo import machine

PACKAGES = (
    "ssl_zoo",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "scikit-learn",
    "Pillow",
    "lightly",
    "kornia",
    "pytorch-metric-learning",
)
FORGET_PEAK = "5"  # proc(5), /proc/PID/clear_refs


def alternate(
    sides: Sequence[Callable[[], Any]],
    rounds: int,
    after: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Time every side in turn, A B A B, so that what slows the machine down for a while slows all of them.

    Args:
        sides: Each is called once before the first round, untimed, then ``rounds`` times.
        rounds: Odd, so that the median is one of the timings.
        after: Called after every run, untimed: for what a run leaves behind.
        clock: Seconds.

    Returns:
        For each side its seconds, in the order of the rounds.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(-1, rounds):
        for side, taken in zip(sides, seconds, strict=True):
            began = clock()
            side()
            ended = clock()
            if after is not None:
                after()
            if number >= 0:
                taken.append(ended - began)
    return seconds


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads in this process, and put the number back afterwards."""
    held = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(held)


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` in a fresh process that has run nothing else.

    Args:
        function: Importable by name.

    Raises:
        RuntimeError: If the process ends without an answer; its own traceback is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(send, function, args))
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"{function.__name__}{args} ended with exit code {process.exitcode} and no answer "
            "(a negative code is a signal; -9 is most often a lack of memory)"
        ) from None
    finally:
        process.join()


def _answer(pipe: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    pipe.send(function(*args))
    pipe.close()


class Peak:
    """Context manager: ``mib`` is by how much the resident memory of this process grew at its highest."""

    mib = 0.0

    def __enter__(self) -> Peak:
        gc.collect()
        # Elsewhere than on Linux only growth beyond the earlier mark is seen, which understates.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
        self._before = high_water()
        return self

    def __exit__(self, *_: Any) -> None:
        self.mib = high_water() - self._before


def high_water() -> float:
    """Highest resident memory of this process so far, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux a new process begins with the mark of the one that started it.
        marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(marks[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_memory(build: Callable[..., Callable[[], Any]], args: tuple[Any, ...], cores: int) -> float:
    """Peak growth in MiB of one call of ``build(*args)``'s result; what ``build`` itself allocates is not counted."""
    with threads(cores):
        work = build(*args)
        with Peak() as peak:
            work()
    return peak.mib


def environment() -> dict[str, Any]:
    """Versions and hardware, without paths or names of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "memory_gib": round(machine.memory() / 2**30, 1),
        # Above 0 somebody else was computing too; Windows does not say.
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
