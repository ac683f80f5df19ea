"""What Hydra runs for every job, in this process or elsewhere, and what became of each."""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from ssl_zoo import composing, files
from ssl_zoo.errors import ConfigError
from ssl_zoo.sweeps import BASIC_SWEEPER, Sweep, named

Function = Callable[[DictConfig], "tuple[int, float | None]"]  # an exit status and the objective
SIGNALLED = 128  # an exit status from here on: stopped by a signal, like 130 and 143


class Ended(NamedTuple):
    """How a job ended."""

    number: int
    words: list[str]
    status: int
    reason: str


class JobFailed(Exception):
    """Tells a sweeper that searches that there is no objective, so that it goes on with another trial."""


class Stopped(BaseException):
    """Ends a sweep whose job was stopped by a signal; no ``Exception``, which would only be that job's."""


class Job:
    """The task function: calls ``function``, tells wrong inputs in a line, keeps exit statuses.

    Args:
        function: Takes a configuration and returns an exit status and the objective, or None.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.process = os.getpid()
        self.folder: Path | None = None  # where a job that runs elsewhere leaves word; set by Place
        self.ended: list[Ended] = []

    def __call__(self, cfg: DictConfig) -> float | None:
        status, objective, reason = self._run(cfg)
        settings = HydraConfig.get()
        several = settings.mode == RunMode.MULTIRUN
        searches = several and settings.sweeper._target_ != BASIC_SWEEPER
        if searches and not status:
            reason = _objective_problem(objective)
            status = 1 if reason else 0
        typed = [composing.typed(word) for word in settings.overrides.task]
        self._tell(Ended(settings.job.num if several else 0, typed, status, reason))
        if several and status >= SIGNALLED and os.getpid() == self.process:
            raise Stopped
        if searches and status:
            raise JobFailed(reason)
        return objective

    def _run(self, cfg: DictConfig) -> tuple[int, float | None, str]:
        try:
            status, objective = self.function(cfg)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1, None, str(error).splitlines()[0]
        except Exception as error:  # of one job: the others run
            traceback.print_exc()
            return 1, None, f"{type(error).__name__}: {error}".splitlines()[0]
        return status, objective, f"exit status {status}" if status else ""

    def _tell(self, ended: Ended) -> None:
        if os.getpid() == self.process:
            self.ended.append(ended)
        elif self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write(self.folder / f"{ended.number}.json", json.dumps(ended._asdict()))

    def gather(self) -> list[Ended]:
        """How all jobs ended, those that ran elsewhere too, by their numbers."""
        while Place.made:
            folder = Place.made.pop()
            found = sorted(folder.glob("*.json"))
            self.ended += [Ended(**json.loads(path.read_text())) for path in found]
            shutil.rmtree(folder, ignore_errors=True)
        return sorted(self.ended)


class Place(Callback):
    """Hydra's callback that gives the jobs of a sweep a folder, which they share with the process that started them."""

    made: list[Path] = []

    def __init__(self) -> None:
        self.folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.folder = Path(config.hydra.sweep.dir).absolute() / f".jobs-{uuid.uuid4().hex[:8]}"
        Place.made.append(self.folder)

    def on_job_start(self, config: DictConfig, *, task_function: Any = None, **_: Any) -> None:
        if isinstance(task_function, Job):
            task_function.folder = self.folder


def all_failed(ended: list[Ended]) -> bool:
    return bool(ended) and all(job.status for job in ended)


def failures(ended: list[Ended], sweep: Sweep) -> str | None:
    """One line that says which jobs of a sweep failed and why, and how many never began; None: none did."""
    reasons: dict[str, list[str]] = {}
    for job in ended:
        if job.status:
            words = named(job.words, sweep.swept)
            reasons.setdefault(job.reason, []).append(f"#{job.number} ({words})" if words else f"#{job.number}")
    if not reasons:
        return None
    count = sum(map(len, reasons.values()))
    total = len(ended) if sweep.searches else len(sweep.jobs)
    told = "; ".join(f"{', '.join(jobs)}: {reason}" for reason, jobs in reasons.items())
    missing = f"; {total - len(ended)} did not run to their end" if total > len(ended) else ""
    return f"{count} of {total} jobs failed: {told}{missing}"


def _objective_problem(objective: float | None) -> str:
    if objective is None:
        return "its summary.json has neither probe/top1 nor knn/top1; choose one of its numbers with objective=NAME"
    return "its objective is not a number" if objective != objective else ""
