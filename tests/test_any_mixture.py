"""A run goes on with any number of processes: one, then two, then one again end where one alone ends.

Every method with its own kind of network, and with a transformer that has stochastic depth; with dropout, where there
is some.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Checkpoint

from ssl_zoo import build, worker
from ssl_zoo.distributed import world_size
from ssl_zoo.modules.dropout import DropPath
from ssl_zoo.trainer import make_trainer
from tests.helpers import METHODS, TINY_VIT, info, quickly, tiny_config
from tests.pool import GlooPool
from tests.test_methods import EPS
from tests.test_sharding import check_equal, meeting, read

STEPS = 9
STOPS = (2, 5, STEPS)  # in the middle of epochs of 6 steps
RUN = [
    "data.source.samples=48", "data.source.val_samples=16", "data.workers=0", "trainer=cpu", "trainer.max_epochs=-1",
    f"trainer.max_steps={STEPS}", "logger=none", "callbacks=none",
]  # fmt: skip
DROPS = [*TINY_VIT, "backbone.drop_path_rate=0.5"]
OWN = {"deepcluster": ["method.dropout=0.5"], "noisy_student": ["method.dropout=0.5"]}
STAGED = ("loco",)  # reads the stages of a network, which transformers do not have


def words(name: str, deep: bool) -> list[str]:
    return [*OWN.get(name, []), *(["backbone=vit_mini", *DROPS] if deep else [])]


class Keep(Checkpoint):
    """One at each stop."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step in STOPS:
            trainer.save_checkpoint(self.folder / f"{self.name}-{trainer.global_step}.ckpt")


def fit(name: str, deep: bool, folder: Path, label: str, resume: Path | None = None) -> None:
    """The steps of a method in float64 that are left, on all processes that there are."""
    cfg = tiny_config(name, [*RUN, *words(name, deep)], tiny=not deep)
    cfg.run_dir, cfg.resume = str(folder), None
    if "Adam" in cfg.optimizer.optimizer._target_:
        OmegaConf.update(cfg, "optimizer.optimizer.eps", EPS, force_add=True)  # test_methods says why
    method, data = worker.build_run(cfg)
    trainer = make_trainer(
        [Keep(folder, label)], [], folder, meeting() if world_size() > 1 else None, accelerator="cpu",
        devices=world_size(), strategy="ddp" if world_size() > 1 else "auto", precision="64-true", max_steps=STEPS,
        max_epochs=-1,
    )  # fmt: skip
    worker.prepare(method, trainer.strategy.root_device, False)
    trainer.fit(method, datamodule=data, ckpt_path=resume, weights_only=True)


CASES = [
    pytest.param(name, deep, marks=[] if (name, deep) == ("dino", True) else pytest.mark.slow)
    for name in METHODS
    for deep in (False, True)
    if not (deep and name in STAGED)
]


@pytest.mark.parametrize(("name", "deep"), CASES)
def test_one_then_two_then_one_is_one(name: str, deep: bool, pool: GlooPool, tmp_path: Path) -> None:
    first, second, last = STOPS
    fit(name, deep, tmp_path, "one")
    pool.run(fit, name, deep, tmp_path, "two", tmp_path / f"one-{first}.ckpt")
    fit(name, deep, tmp_path, "mixed", tmp_path / f"two-{second}.ckpt")
    wanted = read(tmp_path / f"one-{last}.ckpt")
    for label in ("two", "mixed"):
        found = read(tmp_path / f"{label}-{last}.ckpt")
        for part in ("state_dict", "optimizer_states", "global_step"):
            check_equal(found[part], wanted[part], f"{label}: {part}")


@pytest.mark.parametrize("name", quickly([name for name in METHODS if name not in STAGED], ["dino"]))
def test_the_transformers_have_masks_that_belong_to_samples(name: str) -> None:
    method = build.build_method(tiny_config(name, words(name, deep=True), tiny=False), info())
    assert any(isinstance(module, DropPath) and module.drop_prob for module in method.modules())
