"""Which run a start continues, if any: by configuration, by data, by checkpoint, by length."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_zoo import __version__, build, renamed, runs
from ssl_zoo.config import differences, identity, plain
from ssl_zoo.data.fingerprint import changed
from ssl_zoo.errors import ConfigError
from ssl_zoo.lock import Busy, check_free, is_restarted, job
from ssl_zoo.optim.lengths import first_difference, planned
from ssl_zoo.signatures import locate
from ssl_zoo.trainer import device_of, precision_of
from ssl_zoo.words import setting

WAYS_OUT = "overwrite=true moves it aside, hydra.run.dir=DIR chooses another folder"


@dataclass
class Chosen:
    """Where a start will work, and from what it goes on.

    Args:
        folder: Of the run.
        data: The data module, built with what ``auto`` was resolved to when the run began.
        record: Of the run that is continued in its folder; None: a run begins there.
        checkpoint: To continue from; None: from the first step.
        length: ``trainer.max_epochs`` and ``max_steps`` of the run that left the checkpoint.
        resolved: What ``auto`` was resolved to there.
        message: What to tell.
        accepted: What is different in the data, and was accepted.
    """

    folder: Path
    data: Any
    record: runs.Record | None = None
    checkpoint: Path | None = None
    length: Mapping[str, int] | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    accepted: str | None = None
    step: int = 0

    def finished(self, cfg: DictConfig) -> bool:
        """Whether nothing is left to train."""
        return self.record is not None and self.record.state == "finished" and self.length == _length(cfg)

    @property
    def in_place(self) -> bool:
        """Whether it goes on from a checkpoint of its own folder."""
        return self.checkpoint is not None and self.checkpoint.resolve().parents[1] == self.folder.resolve()

    def check_unchanged(self, overwrite: bool) -> None:
        """Raise :class:`Busy` if another process has changed the folder since it was looked at; we hold its lock."""
        if self.record is not None:
            same = runs.read_record(self.folder) == self.record
        else:
            same = overwrite or self.in_place or not runs.is_occupied(self.folder)
        if not same:
            raise Busy(f"{self.folder} has been changed by another process in this moment; start again")

    def begin(self, cfg: DictConfig, typed: dict[str, Any], overrides: list[str]) -> runs.Record:
        """The record with which the training starts: a new one, or the run's with another piece."""
        resolved = {**_resolved(cfg, self.data), **self.resolved}
        data, decisions = self.data.fingerprint(), self.data.decisions
        piece = {
            "started": time.strftime("%Y-%m-%d %H:%M:%S"), "step": self.step, "job": job(), "overrides": overrides,
            "from": None if self.checkpoint is None else str(self.checkpoint),
            "schedule": cfg.resume_schedule, "data": self.accepted,
        }  # fmt: skip
        if self.record is None:
            more: dict[str, Any] = {"resolved": resolved, "overrides": overrides, "pieces": [piece]}
            return runs.Record.begin(typed, data=data, decisions=decisions, **more)
        new = runs.Record.begin(typed)
        if self.accepted is None and self.record.decisions:
            decisions = self.record.decisions  # what was measured then is only read now
        return replace(
            self.record, identity=new.identity, hash=new.hash, version=new.version, length=new.length, job=new.job,
            state="running", reason=None, data=data, decisions=decisions, resolved=resolved,
            pieces=[*self.record.pieces, piece],
        )  # fmt: skip


def choose(cfg: DictConfig, folder: Path, beside: Iterable[Path]) -> Chosen:
    """What a start does, as ``resume`` and ``overwrite`` say; a job that is started again goes on with its run.

    Args:
        cfg: As composed; where a run is continued, ``auto`` becomes in it what it was when that run began.
        folder: Where a new run would work.
        beside: Where an earlier run of the same configuration may lie.

    Raises:
        ConfigError: If a run of somebody's would be written over, or the checkpoint is of another configuration, of
            other data, or no good.
    """
    folders = [folder, *beside]
    if is_restarted():
        own = [run for run in _runs(cfg, folders) if run.record.job == job()]
        if own:
            return _go_on(cfg, own[0], *_data_of(cfg, own[0]), f"this job was started again ({job()})")
    if cfg.resume == "auto":
        return _auto(cfg, folder, folders)
    if cfg.resume is not None:
        return _from(cfg, folder)
    _check_free_of_runs(cfg, folder)
    return Chosen(folder, build.build_data(cfg))


def _check_free_of_runs(cfg: DictConfig, folder: Path) -> None:
    """Raise the sentence about the run that lies where another would begin, unless it may be moved aside."""
    if cfg.overwrite or not runs.is_occupied(folder):
        return
    try:
        record = runs.read_record(folder)
    except runs.Damaged as error:
        raise ConfigError(f"{folder} holds a run: {error}; {WAYS_OUT}") from None
    if record is None:
        raise ConfigError(f"{folder} holds checkpoints, and no {runs.RECORD} that says whose they are; {WAYS_OUT}")
    others = record.differs(identity(plain(cfg)))
    if others:
        raise ConfigError(f"{folder} holds a run of another configuration ({_few(others)}); {WAYS_OUT}")
    way = "" if cfg.resume == "auto" else "resume=auto continues it, "
    where = " of other data" if cfg.resume == "auto" else ""
    raise ConfigError(f"{folder} holds a run{where} already ({record.state}); {way}{WAYS_OUT}")


def _few(lines: list[str], count: int = 3) -> str:
    return "; ".join(lines[:count]) + (f"; and {len(lines) - count} more" if len(lines) > count else "")


def _runs(cfg: DictConfig, folders: Iterable[Path]) -> list[runs.Found]:
    return runs.candidates(folders, identity(plain(cfg)))


def _auto(cfg: DictConfig, folder: Path, folders: Iterable[Path]) -> Chosen:
    for run in _runs(cfg, folders):
        if run.folder != folder and any(piece.get("schedule") == "new" for piece in run.record.pieces):
            continue  # its rates are not those of a run of its length; it goes on in its own folder only
        data, difference = _data_of(cfg, run)
        if difference is not None and run.record.data.get("root") != data.fingerprint()["root"]:
            continue  # another data set of the same kind: another run
        if run.last is None and run.folder != folder:
            check_free(run.folder)  # one that lives will save later; one that is dead has nothing to continue
            continue
        return _go_on(cfg, run, data, difference, "resume=auto")
    _check_free_of_runs(cfg, folder)
    told = f"resume=auto: no earlier run of this configuration and data beside {folder}; a new one begins"
    return Chosen(folder, build.build_data(cfg), message=told)


def _go_on(cfg: DictConfig, run: runs.Found, data: Any, difference: str | None, why: str) -> Chosen:
    """In its own folder, with what it had decided."""
    accepted = None if difference is None else _accept(cfg, run.folder, difference)
    runs.apply(cfg, run.record.resolved)
    step = 0 if run.last is None else int(runs.read_checkpoint(run.last, "resume")["global_step"])
    told = f"continues {run.folder} from step {step:,}"
    told = f"{run.folder} ended before its first checkpoint and begins again" if run.last is None else told
    return Chosen(
        run.folder, data, run.record, run.last, run.record.length, run.record.resolved, f"{why}: {told}", accepted, step
    )


def _data_of(cfg: DictConfig, run: runs.Found) -> tuple[Any, str | None]:
    """The data as that run reads it, and what is different in it since the run began."""
    own = deepcopy(cfg)
    runs.apply(own, run.record.resolved)
    data = build.build_data(own)
    old, new = run.record.data, data.fingerprint()
    if "train" in old:
        return data, changed(old, new)
    if old.get("root") != new["root"]:
        return data, "it lies elsewhere"
    print(f"{run.folder} is a run of an earlier version, which did not note what its data were: taken for the same")
    return data, None


def _accept(cfg: DictConfig, where: Path, difference: str) -> str:
    """``difference``, if going on in spite of it is asked for and can be."""
    method = locate(cfg.method._target_)
    told = f"{where}: the data has changed since this run began: {difference}"
    if method.rows_of_samples:
        raise ConfigError(
            f"{told}; {method.__name__} keeps a row for each sample, which would be another image's: begin a new run "
            "with resume=null"
        )
    if cfg.data.get("changed") != "accept":
        raise ConfigError(f"{told}; data.changed=accept goes on with it, resume=null begins a new run")
    return difference


def _from(cfg: DictConfig, folder: Path) -> Chosen:
    """``resume=PATH``: in the checkpoint's own folder, or in a new one."""
    found = runs.find(cfg.resume, "resume")
    checkpoint = runs.read_checkpoint(found.file, "resume")
    said = checkpoint["ssl_zoo"]
    typed = renamed.current(said.get("identity") or identity(said["config"]))
    others = differences(typed, identity(plain(cfg)), common=said.get("version") != __version__)
    if others:
        raise ConfigError(
            f"resume={cfg.resume}: of another configuration ({_few(others)}); to resume is to go on with the same one; "
            "to start another from its encoder, write that with ssl-zoo export and set backbone.weights=FILE"
        )
    inside = found.folder.resolve() == folder.resolve()
    if inside and found.file.name != runs.LAST:
        raise ConfigError(
            f"resume={cfg.resume}: going on from there would write over the {runs.LAST} beside it, which has come "
            "further; choose another folder with hydra.run.dir=DIR"
        )
    if not inside:
        _check_free_of_runs(cfg, folder)
    resolved = said.get("resolved", {})
    runs.apply(cfg, resolved)
    data = build.build_data(cfg)
    difference = None if said.get("data") is None else changed(said["data"], data.fingerprint())
    accepted = None if difference is None else _accept(cfg, found.file, difference)
    length = said.get("length") or {key: said["config"]["trainer"][key] for key in runs.LENGTH}
    record = runs.read_record(folder) if inside else None
    told = f"continues {found.file} from step {checkpoint['global_step']:,}"
    return Chosen(folder, data, record, found.file, length, resolved, told, accepted, int(checkpoint["global_step"]))


def check_length(cfg: DictConfig, chosen: Chosen, method: Any) -> None:
    """A run of another length goes on only if all its steps so far would have been the same.

    Raises:
        ConfigError: If it would be shorter than what is trained, or a schedule has had other values; with the first.
    """
    if chosen.checkpoint is None:
        return
    samples, step = chosen.data.epoch_samples, chosen.step
    new = planned(cfg, samples)
    if step > new.total or (step == new.total and chosen.record is None):
        raise ConfigError(
            f"trainer.max_epochs={cfg.trainer.max_epochs} trainer.max_steps={cfg.trainer.max_steps} are {new.total:,} "
            f"steps, and {chosen.checkpoint} has taken {step:,} already; wanted more, or another folder with "
            "hydra.run.dir=DIR resume=null"
        )
    if chosen.length == _length(cfg) or cfg.resume_schedule == "new":
        return
    before = deepcopy(cfg)
    before.trainer.update(dict(chosen.length or {}))
    method.bind(chosen.data.batch_size, fused=False)
    found = first_difference(method, step, planned(before, samples), new)
    if found is not None:
        words = " ".join(f"trainer.{key}={value}" for key, value in (chosen.length or {}).items())
        raise ConfigError(
            f"{chosen.checkpoint} is of a run with {words}, and in a run of this length {found.name} would have been "
            f"{found.new:.6g} at step {found.step:,}, where it was {found.old:.6g}: going on would be neither run. "
            f"Begin a new one (hydra.run.dir=DIR resume=null), or go on from there with the new schedule: "
            f"{setting('resume', str(chosen.checkpoint))} resume_schedule=new hydra.run.dir=DIR"
        )


def _length(cfg: DictConfig) -> dict[str, int]:
    return {key: cfg.trainer[key] for key in runs.LENGTH}


def _resolved(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """What every ``auto`` that bears on the numbers has become; accelerator and workers are each machine's own."""
    made = {"trainer.precision": precision_of(cfg), **data.resolved(device_of(cfg))}
    typed = {path: _as_typed(cfg, path) for path in made}
    return {
        path: {"typed": typed[path], "value": value}
        for path, value in made.items()
        if typed[path] == "auto" or path == runs.NORMALIZE
    }


def _as_typed(cfg: DictConfig, path: str) -> Any:
    value = OmegaConf.select(cfg, path)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
