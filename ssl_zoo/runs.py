"""A run folder: what lies in it, whose it is, which checkpoint it offers, and whether it has ended.

``run.json`` is the record: the configuration as typed as far as it decides the numbers, fingerprint of the data, values
that ``auto`` was resolved to, state, the scheduler's job. Whatever is written here is whole at any moment
(:mod:`ssl_zoo.files`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ssl_zoo import __version__, archives, files, renamed, trust
from ssl_zoo.config import config_hash, differences, identity
from ssl_zoo.errors import ConfigError, nearest
from ssl_zoo.lock import job
from ssl_zoo.signatures import fits

RECORD, CONFIG, SUMMARY, METRICS = "run.json", "config.yaml", "summary.json", "metrics.csv"
CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
# What a run writes, as patterns of names: overwrite=true moves these aside and touches nothing else.
WRITTEN = (
    CHECKPOINTS, METRICS, f"{METRICS}.tail", SUMMARY, CONFIG, "views.png", "curves.png", "few_labels.png",
    "damaged.txt", "damaged.rank*.txt", "tensorboard", "evaluation", "export", RECORD,
)  # fmt: skip
LENGTH = ("max_epochs", "max_steps")  # of trainer
NORMALIZE = trust.NORMALIZE  # resolved to measured numbers, which may also take the place of those of colour

State = Literal["running", "interrupted", "finished", "failed"]


@dataclass
class Record:
    """What ``run.json`` holds."""

    identity: dict[str, Any]  # config.identity() of the configuration as typed
    hash: str  # of it
    state: State = "running"
    reason: str | None = None  # of the state: the signal and the step, or the error
    data: dict[str, Any] = field(default_factory=dict)  # DataModule.fingerprint(); of earlier versions the root alone
    decisions: list[str] = field(default_factory=list)  # DataModule.decisions, as told at the start
    resolved: dict[str, Any] = field(default_factory=dict)  # path -> {typed: auto, value: what it became}
    length: dict[str, int] = field(default_factory=dict)  # max_epochs, max_steps
    overrides: list[str] = field(default_factory=list)  # as typed
    job: str | None = None
    id: str = field(default_factory=lambda: uuid4().hex[:8])  # of the run in services that track it
    pieces: list[dict[str, Any]] = field(default_factory=list)  # each start: when, from where, and how
    metrics: dict[str, float] = field(default_factory=dict)  # the last values, when it is finished
    seconds: float = 0.0  # of training, over all pieces
    version: str | None = __version__  # of ssl_zoo; None: from before there were records

    def __post_init__(self) -> None:
        self.identity = renamed.current(self.identity)

    @classmethod
    def begin(cls, typed: dict[str, Any], **more: Any) -> Record:
        """The record of a run that starts now; ``typed`` is its plain configuration, in which ``auto`` is a word."""
        length = {key: typed["trainer"][key] for key in LENGTH}
        return cls(identity(typed), config_hash(typed), length=length, job=job(), **more)

    def differs(self, wanted: dict[str, Any]) -> list[str]:
        """What is set otherwise in ``wanted``, an identity; settings that another version lacked do not count."""
        return differences(self.identity, wanted, common=self.version != __version__)

    def write(self, folder: Path) -> None:
        files.write(folder / RECORD, json.dumps(asdict(self), indent=2) + "\n")


class Found(NamedTuple):
    """A run folder with its record."""

    folder: Path
    record: Record

    @property
    def last(self) -> Path | None:
        """The checkpoint to continue from; None: it ended before its first."""
        file = self.folder / CHECKPOINTS / LAST
        return file if file.is_file() else None

    @property
    def age(self) -> float:
        """When it last saved, for the order of runs: those without a checkpoint come last."""
        return 0.0 if self.last is None else self.last.stat().st_mtime


class Damaged(ConfigError):
    """A ``run.json`` that says nothing; the message says why."""


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None: it has none.

    Raises:
        Damaged: It is empty, half-written, or another program's.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() == {"hash"}:
            return _record_of_before(folder)
        record = Record(**content)
        odd = next((f.name for f in fields(record) if not fits(getattr(record, f.name), _HINTS[f.name])), None)
        if odd is None and not all(trust.is_resolved(path, item) for path, item in record.resolved.items()):
            odd = "resolved"  # it goes into a configuration that may name anything
        if odd is not None:
            raise ValueError(f"{odd} is {getattr(record, odd)!r}")
        return record
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise Damaged(f"{file} cannot be read as a run's record ({str(error).splitlines()[0]})") from None


def _record_of_before(folder: Path) -> Record:
    """There was no state: a run is finished that has a summary and took all its steps."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=False)
        assert isinstance(config, dict)
        typed = {str(key): value for key, value in config.items()}
        root = typed["data"].get("root")
        root = None if root is None else os.path.abspath(os.path.expanduser(str(root)))
        record = Record.begin(typed, version=None, data={"root": root})
    except (OmegaConfBaseException, YAMLError, KeyError, AssertionError) as error:
        raise ValueError(f"its {CONFIG} says too little: {error}") from None
    last = folder / CHECKPOINTS / LAST
    whole = (folder / SUMMARY).is_file() and last.is_file() and _took_all(read_checkpoint(last), **record.length)
    record.state, record.job = "finished" if whole else "interrupted", None
    record.id = record.hash[:8]
    return record


def _took_all(checkpoint: dict[str, Any], max_epochs: int, max_steps: int) -> bool:
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return (max_steps != -1 and checkpoint["global_step"] >= max_steps) or (max_epochs != -1 and epochs >= max_epochs)


def apply(cfg: DictConfig, resolved: Mapping[str, Mapping[str, Any]]) -> None:
    """Put what ``auto`` was resolved to in place of the word; what is typed otherwise now stays."""
    for path, item in resolved.items():
        # It comes out of a file, and what it is put into may name anything: words and numbers only.
        if trust.is_resolved(path, item) and OmegaConf.select(cfg, path) == item["typed"]:
            OmegaConf.update(cfg, path, item["value"])


_HINTS = get_type_hints(Record)


def is_occupied(folder: Path) -> bool:
    """Whether a start here would write over somebody's run."""
    return (folder / RECORD).exists() or any((folder / CHECKPOINTS).glob("*.ckpt"))


def candidates(folders: Iterable[Path], wanted: dict[str, Any]) -> list[Found]:
    """The runs of one configuration (an identity) among ``folders``, the newest checkpoint first.

    Records that cannot be read are skipped with a line.
    """
    found = []
    for folder in dict.fromkeys(folders):
        try:
            record = read_record(folder) if folder.is_dir() else None
        except Damaged as error:
            print(f"{error}: skipped")
            continue
        if record is not None and not record.differs(wanted):
            found.append(Found(folder, record))
    return sorted(found, key=lambda run: run.age, reverse=True)


def move_aside(folder: Path) -> Path:
    """Move what a run has written into ``old-<time>`` below its folder (``overwrite=true``)."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    aside = next(path for path in _names(folder / f"old-{stamp}") if not path.exists())
    aside.mkdir()
    for name in WRITTEN:  # the record last: a kill in between leaves a folder that is still a run's
        for path in list(folder.glob(name)):
            files.rename(path, aside / path.name)
    return aside


def clear(folder: Path) -> None:
    """Remove what a run has written into a folder that is nobody's but the caller's."""
    for name in (RECORD, *WRITTEN):  # the record first: a kill in between leaves no half run
        for path in list(folder.glob(name)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _names(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def find(path: str | Path | None, key: str = "checkpoint") -> Checkpoint:
    """The checkpoint that a path means: a file, a run folder, or a sweep with one run.

    Args:
        path: What was typed; ``~`` is the home folder.
        key: Under which it was typed, for messages.

    Raises:
        ConfigError: If there is none, or several runs lie there; the message says what lies beside or below instead.
    """
    if path is None:
        raise ConfigError(f"{key} is not given; wanted {key}=RUN_FOLDER or {key}=FILE.ckpt")
    given = Path(os.path.expanduser(str(path)))
    if given.is_dir():
        return _in_folder(given, key)
    if not given.is_file():
        beside = [file.name for file in given.parent.iterdir()] if given.parent.is_dir() else []
        hint = f"in {given.parent}: {nearest(given.name, beside)}" if beside else f"{given.parent} is no folder either"
        raise ConfigError(f"{key}={path}: there is no such file; {hint}; wanted a .ckpt file or a run folder")
    return Checkpoint(given, given.parent.parent if given.parent.name == CHECKPOINTS else given.parent)


class Checkpoint(NamedTuple):
    """A checkpoint file and the run folder that its results belong to."""

    file: Path
    folder: Path


def _in_folder(folder: Path, key: str) -> Checkpoint:
    for file in (folder / CHECKPOINTS / LAST, folder / LAST):
        if file.is_file():
            return Checkpoint(file, folder)
    # Runs of an evaluation (fine-tuning) lie below their run and are named on purpose only.
    below = sorted(path.parents[1] for path in folder.rglob(f"{CHECKPOINTS}/{LAST}"))
    below = [run for run in below if "evaluation" not in run.relative_to(folder).parts]
    if len(below) == 1:
        return Checkpoint(below[0] / CHECKPOINTS / LAST, below[0])
    hint = "is its run still in its first epoch?"
    if below:
        shown = ", ".join(map(str, below[:3])) + (", ..." if len(below) > 3 else "")
        hint = f"there are {len(below)} runs below it, choose one: {shown}"
    raise ConfigError(f"{key}={folder}: found no {CHECKPOINTS}/{LAST} in this folder; {hint}")


def read_checkpoint(path: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """Read a checkpoint of ours, tensors and plain containers only.

    Args:
        path: As :func:`find` takes it.
        key: Under which it was typed, for messages.

    Raises:
        ConfigError: If there is no such file, it is damaged, or it was not written by ssl_zoo.
    """
    file = find(path, key).file
    try:
        checkpoint = archives.read(file)
    except archives.Unreadable as error:
        raise ConfigError(f"{key}={file}: cannot be read as a checkpoint ({error})") from None
    if not isinstance(checkpoint, dict) or "ssl_zoo" not in checkpoint:
        raise ConfigError(
            f"{key}={file}: not written by ssl_zoo (no 'ssl_zoo' record in it); "
            "start from foreign weights with backbone.weights=FILE"
        )
    problem = trust.record_problem(checkpoint)
    if problem is not None:
        raise ConfigError(f"{key}={file}: damaged or changed: {problem}")
    return checkpoint
