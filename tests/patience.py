"""How long a test waits before it gives up: seconds of an idle machine, so that a busy one is waited for longer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


def slowness() -> float:
    """How many processes want a core, for each that there is: so much longer work takes."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Patience:
    """A clock that runs as much slower as the machine is busy."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._last = time.monotonic()

    @property
    def over(self) -> bool:
        now = time.monotonic()
        self.left -= (now - self._last) / slowness()
        self._last = now
        return self.left <= 0


def is_in_time(ready: Callable[[float], Any], seconds: float, step: float = 1.0) -> bool:
    """Whether ``ready(step)``, which waits that long itself, comes true within ``seconds``."""
    patience = Patience(seconds)
    while not (found := ready(step)) and not patience.over:
        pass
    return bool(found)


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Wait until something holds."""

    def holds(step: float) -> bool:
        if not (held := condition()):
            time.sleep(step)
        return bool(held)

    if not is_in_time(holds, seconds, step=0.02):
        pytest.fail(f"waited {seconds} s")


def run(command: Sequence[str], seconds: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` with captured text and a clock that waits for a busy machine."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(command), **pipes, **options) as process:
        patience = Patience(seconds)
        while True:
            try:
                out, err = process.communicate(timeout=1)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                if patience.over:
                    process.kill()
                    out, err = process.communicate()
                    raise TimeoutError(f"{out}\n{err}\n{Path(command[0]).name} still ran after {seconds} s") from None
