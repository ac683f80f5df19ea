"""What our configuration of a recorded run composes: the objects that a training would use, built to be asked."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ssl_zoo import build, config, teacher_record
from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.image.views import ViewSpec
from ssl_zoo.augmentations.pipeline import KINDS
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.base import Method
from ssl_zoo.optim.lengths import planned
from ssl_zoo.optim.recipe import BoundRecipe
from ssl_zoo.optim.schedules import Progress
from tests.golden.recipes.recorded import Recorded
from tests.golden.recipes.samples import classes, samples

EXPERIMENTS = Path(__file__).parents[3] / "conf" / "experiment"
PLACE_HOLDERS = ("MARKET", "DIR", "X")  # of recorded commands: a folder of images, a teacher's checkpoint


@dataclass(frozen=True)
class Op:
    """One operation of a view: its name, all its options with their defaults, and itself."""

    name: str
    options: dict[str, Any]
    module: nn.Module


@dataclass(frozen=True)
class ViewOf:
    """An entry of ``augmentation.views``."""

    count: int
    size: Any
    kind: str
    tie: dict[str, int]
    ops: list[Op]


class Composed:
    """Our configuration of a run: its experiment, or the command that is recorded with it.

    Everything is built when it is first asked for. Networks lie on the meta device where that can be done.
    """

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded

    @property
    def is_experiment(self) -> bool:
        return (EXPERIMENTS / f"{self.recorded.name}.yaml").exists()

    @property
    def words(self) -> list[str]:
        """Of the command line."""
        recorded = self.recorded.compose or []
        if self.is_experiment:
            held = [word for word in recorded if word.partition("=")[2] in PLACE_HOLDERS]
            return [f"experiment={self.recorded.name}", *held]
        if not recorded:
            raise LookupError(f"nothing of ours composes {self.recorded}: write conf/experiment/{self.recorded}.yaml")
        return recorded

    @cached_property
    def cfg(self) -> DictConfig:
        return config.load(self.words)

    @cached_property
    def plain(self) -> dict[str, Any]:
        return config.plain(self.cfg)

    @cached_property
    def info(self) -> DataInfo:
        """What the method is told of its data."""
        data = self.cfg.data
        rows = data.batch_size // self.cfg.trainer.accumulate
        size = self.plain["data"]["image_size"]
        return image_info(samples(self.recorded.dataset, self.cfg), classes(self.recorded.dataset), size, 3, rows)

    @cached_property
    def method(self) -> Method:
        cfg = _without_files(self.cfg, self.info)
        try:
            with torch.device("meta"):
                return build.build_method(cfg, self.info)
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in str(error):
                raise
        return build.build_method(cfg, self.info)  # a constructor that looks at values needs real ones

    @cached_property
    def bound(self) -> BoundRecipe:
        """The optimizer and the values of its groups at every step, for the composed batch."""
        return self.method.bind(self.cfg.data.batch_size, fused=False)

    @cached_property
    def views(self) -> list[ViewOf]:
        """In the order of a pipeline: the global views first."""
        specs = [ViewSpec.parse(entry) for entry in self.plain["augmentation"]["views"]]
        specs.sort(key=lambda spec: KINDS.index(spec.kind))
        return [ViewOf(s.count, s.side, s.kind, dict(s.tie), [op_of(e, s.side) for e in s.ops]) for s in specs]

    @cached_property
    def eval_ops(self) -> list[Op]:
        evaluation = self.plain["augmentation"]["eval"]
        size = evaluation.get("size") or self.plain["data"]["image_size"]
        return [op_of(entry, size) for entry in evaluation["ops"]]

    @cached_property
    def _ours(self) -> Progress:
        return planned(self.cfg, self.info.samples)

    @property
    def ours_total(self) -> int:
        return self._ours.total

    @property
    def ours_steps_per_epoch(self) -> int:
        return int(self._ours.steps_per_epoch)

    def progress(self, step: int, theirs: bool = True) -> Progress:
        """Where a run stands at a step: one of the recorded length, where that is known, or of our own."""
        total, per_epoch = (self.recorded.value(name) for name in ("total_steps", "steps_per_epoch"))
        if not theirs or total is None or per_epoch is None:
            return Progress(step, self.ours_total, self.ours_steps_per_epoch)
        return Progress(step, total, per_epoch)


def op_of(entry: Any, size: Any) -> Op:
    name, options = registry.parse(entry)
    module = registry.build(entry, size)
    parameters = inspect.signature(registry.get(name)).parameters
    defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    sized = {"size": size} if "size" in parameters else {}
    return Op(name, {**defaults, **sized, **options}, module)


def _without_files(cfg: DictConfig, info: DataInfo) -> DictConfig:
    """The configuration without weights to start from, and with a teacher that needs no checkpoint."""
    cfg = OmegaConf.create(config.plain(cfg))
    if cfg.backbone.get("weights"):
        cfg.backbone.weights = cfg.method.backbone.weights = None
    teacher = cfg.method.get("teacher")
    if teacher and teacher.get("checkpoint") is not None:
        teacher.network, teacher.kept = _teacher(cfg, info), True
    return cfg


def _teacher(cfg: DictConfig, info: DataInfo) -> str:
    """How to build a teacher as a checkpoint of ours says it: a classifier on the network that is wanted, or of the
    student's kind."""
    wanted = cfg.method.teacher.get("backbone")
    taught = config.load(["method=supervised", "data=synthetic", *([f"backbone={wanted}"] if wanted else [])])
    if not wanted:
        taught.backbone = cfg.backbone
    said = {"config": config.plain(taught), "data_info": dict(vars(info))}
    return teacher_record.read_record({"ssl_zoo": said}, "a teacher")
