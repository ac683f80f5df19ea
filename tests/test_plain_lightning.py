"""``pl.Trainer(...).fit(method, datamodule)`` is as right as the command: rates, precision, clipping, skipped steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from ssl_zoo import worker
from ssl_zoo.data.batch import Batch
from ssl_zoo.errors import ConfigError
from ssl_zoo.optim.clipping import Clip
from ssl_zoo.optim.recipe import OptimizerRecipe
from tests.callbacks.tiny import ROWS, TinyData, TinyMethod
from tests.helpers import tiny_config

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
RUN = ["data.source.samples=48", "data.source.val_samples=16", "trainer=cpu", "trainer.max_epochs=1", "logger=none",
       "callbacks=none"]  # fmt: skip
SCALE = 2.0**10  # of a gradient scaler: no gradient may be clipped before it is divided by this


def plain(**options: Any) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=1, **{"max_epochs": 1, **QUIET, **options})


def scaled(scale: float = SCALE) -> MixedPrecision:
    """What ``precision="16-mixed"`` is on a GPU; on a CPU Lightning would take bfloat16 instead."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    return MixedPrecision("16-mixed", "cpu", scaler)


@pytest.mark.parametrize(("name", "precision"), [
    ("byol", "32-true"), pytest.param("byol", "bf16-mixed", marks=pytest.mark.slow), ("byol", "bf16-true"),
    ("mae", "bf16-mixed"), pytest.param("swav", "32-true", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_is_that_of_the_command_bit_for_bit(name: str, precision: str, tmp_path: Path) -> None:
    cfg = tiny_config(name, [*RUN, f"trainer.precision={precision}"])
    cfg.run_dir, cfg.resume, cfg.trainer.clip = str(tmp_path), None, {"mode": "global", "value": 0.1}
    ours = worker.run(cfg, tmp_path).method.state_dict()
    method, data = worker.build_run(cfg)
    plain(precision=precision).fit(method, datamodule=data)
    odd = [key for key, value in method.state_dict().items()
           if isinstance(value, Tensor) and not torch.equal(value, ours[key])]  # fmt: skip
    assert odd == [] and method.state_dict().keys() == ours.keys()


class Watched(TinyMethod):
    """Adam with a fused step where it may be; keeps gradient norms, and which steps were taken."""

    def __init__(self, spoil: int | None = None) -> None:
        super().__init__()
        self.recipe = OptimizerRecipe(partial(torch.optim.Adam, lr=0.01), {"lr": 0.01}, lr_scale="absolute")
        self.spoil = spoil
        self.norms: list[float] = []
        self.taken: list[int] = []
        self.begun: list[int] = []

    def training_loss(self, batch: Batch) -> dict[str, Tensor]:
        out = super().training_loss(batch)
        self.begun.append(self.progress.step)
        return {"loss": out["loss"] * (float("inf") if self.progress.step == self.spoil else 1.0)}

    def after_step(self) -> None:
        self.taken.append(self.progress.step)
        gradients = [p.grad.flatten() for p in self.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))


def watched(plugin: MixedPrecision | None, spoil: int | None = None, **options: Any) -> Watched:
    pl.seed_everything(0, verbose=False)
    method = Watched(spoil)
    method.clip = Clip("global", 1e-3)
    plain(plugins=[] if plugin is None else [plugin], **options).fit(method, datamodule=TinyData())
    return method


def test_with_a_gradient_scaler_the_true_gradients_are_clipped_and_the_step_is_not_fused() -> None:
    method = watched(scaled())
    assert not method.bound.optimizer.defaults.get("fused")
    assert method.norms == pytest.approx([1e-3] * len(method.norms), rel=1e-2) and len(method.norms) == 4
    assert watched(None).bound.optimizer.defaults["fused"] is True


def test_the_scale_changes_nothing() -> None:
    """A power of two, which float16 takes exactly."""
    small, large = (watched(scaled(scale)).state_dict() for scale in (2.0**8, 2.0**12))
    assert all(torch.equal(value, large[key]) for key, value in small.items() if isinstance(value, Tensor))


def test_a_step_that_the_scaler_skips_moves_the_schedules_and_not_the_averages() -> None:
    method = watched(scaled(), spoil=1)
    assert method.begun == [0, 1, 2, 3]  # as the iterations of the authors' loops
    assert method.taken == [0, 2, 3]


def test_a_method_may_be_fitted_again_with_another_precision() -> None:
    method = Watched()
    for plugins in ([], [scaled()]):
        plain(plugins=plugins).fit(method, datamodule=TinyData())
    assert not method.bound.optimizer.defaults.get("fused") and method.bound.optimizer.param_groups[0]["lr"] == 0.01


def test_rates_are_those_of_the_datamodules_batch_and_without_one_of_the_bound_batch() -> None:
    pl.seed_everything(0, verbose=False)
    method, data = TinyMethod(), TinyData()
    plain().fit(method, datamodule=data)
    assert method.bound.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * ROWS / 256)
    method.bind(512)
    plain().fit(method, data.train_dataloader())
    assert method.bound.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 2)
    with pytest.raises(ConfigError, match=r"give it a datamodule with batch_size, or call method.bind\(batch_size\)"):
        plain().fit(TinyMethod(), data.train_dataloader())


def test_the_clipping_of_a_trainer_of_the_users_own_is_done() -> None:
    pl.seed_everything(0, verbose=False)
    method = Watched()
    plain(gradient_clip_val=1e-3).fit(method, datamodule=TinyData())
    assert method.norms == pytest.approx([1e-3] * 4, rel=1e-2)


def test_micro_batches_that_do_not_make_a_step_are_refused(tmp_path: Path) -> None:
    cfg = tiny_config("byol", RUN)
    cfg.resume = None
    method, data = worker.build_run(cfg)
    with pytest.raises(ConfigError, match="a step would have 16 samples, and data.batch_size=8; set accumulate_grad_b"):
        plain(accumulate_grad_batches=2).fit(method, datamodule=data)
