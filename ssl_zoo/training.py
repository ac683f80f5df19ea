"""The training command: choose the run folder, build, train, report."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ssl_zoo import composing, launch, requeue, resume, runs, started, sweeps, tracking, trainer, worker
from ssl_zoo.callbacks.checkpoint import INTERRUPTED, TERMINATED, Terminated
from ssl_zoo.config import plain
from ssl_zoo.lock import Busy, check_free
from ssl_zoo.rendezvous import Meeting
from ssl_zoo.report import finish, start
from ssl_zoo.typed_paths import seen_from


class Outcome(NamedTuple):
    """What a job ends with: its exit status, and the number that a sweeper asked for (None: there is none)."""

    status: int
    objective: float | None = None


def train(cfg: DictConfig, meeting: Meeting | None = None) -> Outcome:
    """Build, then train here or in one process per device; a run that is finished gives its numbers again.

    Args:
        cfg: As composed.
        meeting: Of the processes that a launcher has started, of which this is rank 0; None: there are none.
    """
    runtime = HydraConfig.get().runtime
    cfg = OmegaConf.create(OmegaConf.to_container(cfg))  # type: ignore[assignment]
    if meeting is not None:
        started.fit(cfg, meeting)
    if Path.cwd() != Path(runtime.cwd):  # hydra.job.chdir moves the process
        seen_from(Path(runtime.cwd), cfg)
    folder = Path(runtime.output_dir)
    made = not any(folder.iterdir())
    with ExitStack() as stack:
        stack.callback(_remove_made, folder, made, Path(runtime.cwd))  # unless a run has begun there
        try:
            outcome, reason = _train(cfg, folder, stack, meeting), _reason(cfg)
        except KeyboardInterrupt:
            print("stopped by SIGINT at once", file=sys.stderr)
            return Outcome(INTERRUPTED)
        except Terminated as error:
            print(error, file=sys.stderr)
            outcome, reason = Outcome(error.status), error.reason
    if outcome.status == TERMINATED:
        requeue.after_stop(reason, cfg.requeue)
    return outcome


def _train(cfg: DictConfig, folder: Path, stack: ExitStack, meeting: Meeting | None) -> Outcome:
    trainer.check_devices(cfg)
    typed = plain(cfg)
    chosen = resume.choose(cfg, folder, _earlier(folder))
    with open_dict(cfg):
        cfg.run_dir = str(chosen.folder)
    if chosen.message and not chosen.finished(cfg):
        print(chosen.message)
    lock = launch.lock(cfg, chosen.folder, meeting)
    stack.callback(lock.release)
    chosen.check_unchanged(cfg.overwrite)
    if cfg.overwrite and chosen.record is None and not chosen.in_place and runs.is_occupied(chosen.folder):
        print(f"overwrite=true: the earlier run is in {runs.move_aside(chosen.folder)} now")
    if chosen.finished(cfg):
        print(f"{chosen.folder} is finished already: nothing to do (another run: resume=null)")
        return _reported(cfg, chosen)
    with open_dict(cfg):
        cfg.resume = None if chosen.checkpoint is None else str(chosen.checkpoint)
    built: Any = worker.build_run(cfg, chosen.data)
    resume.check_length(cfg, chosen, built[0])
    record = chosen.begin(cfg, typed, _overrides())
    record.decisions += start.starts(built[0])
    runs.apply(cfg, record.resolved)
    start.show(cfg, chosen.folder, built[0], built[1], chosen.step)
    (chosen.folder / runs.SUMMARY).unlink(missing_ok=True)  # of the run when it was shorter
    if launch.starts(cfg, meeting):
        built = chosen.data = None  # the ranks build their own: this process only waits, in little memory
    status, trained = launch.execute(cfg, chosen.folder, record, built, meeting)
    if status:
        return Outcome(status)
    numbers = _report(cfg, chosen.folder, trained)
    return Outcome(0, sweeps.objective_of(numbers, cfg.objective))


def _reason(cfg: DictConfig) -> str:
    """Why the run ended that other processes have trained."""
    record = runs.read_record(Path(cfg.run_dir)) if cfg.run_dir else None
    return (record and record.reason) or ""


def _report(cfg: DictConfig, folder: Path, trained: worker.Trained | None) -> dict[str, Any]:
    """Report on a finished run; of one that other processes trained, from its last checkpoint."""
    record = runs.read_record(folder)
    assert record is not None
    if trained is None:
        with open_dict(cfg):
            cfg.resume = str(folder / runs.CHECKPOINTS / runs.LAST)
        method, data = worker.build_run(cfg)
        loggers = tracking.build(cfg.logger, plain(cfg), record.id)
        trained = worker.Trained(method, data, loggers, trainer.device_of(cfg), 0.0)
    numbers = finish.finish(cfg, folder, trained.method, trained.data, record, trained.device)
    tracking.end(trained.loggers, numbers)
    return numbers


def _reported(cfg: DictConfig, chosen: resume.Chosen) -> Outcome:
    """The numbers of a finished run; a report that was cut short is made now."""
    numbers = finish.read(chosen.folder)
    if numbers is None or numbers.get("report") == finish.PENDING:
        numbers = _report(cfg, chosen.folder, None)
    return Outcome(0, sweeps.objective_of(numbers, cfg.objective))


def _earlier(folder: Path) -> list[Path]:
    """Where an earlier run of the same configuration may lie: beside this one, and in the sweeps beside this sweep."""
    beside = [path for path in folder.parent.glob("*") if path != folder]
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        sweep = Path(HydraConfig.get().sweep.dir).absolute()
        beside += [path for path in sweep.parent.glob("*/*") if path != folder]
    return beside


def _overrides() -> list[str]:
    return [composing.typed(str(word)) for word in HydraConfig.get().overrides.task]


def _remove_made(folder: Path, made: bool, home: Path) -> None:
    """Remove a folder that this start made and in which no run has begun, and parents that are empty then."""
    if not made or not folder.is_dir() or runs.is_occupied(folder):
        return
    try:
        check_free(folder)
    except Busy:  # another start of the same second has chosen it too, and is still building
        return
    if Path.cwd() == folder:
        os.chdir(home)  # hydra.job.chdir=true
    shutil.rmtree(folder, ignore_errors=True)
    for parent in list(folder.parents)[:3]:
        if parent == home or not parent.is_dir() or any(parent.iterdir()):
            return
        parent.rmdir()
