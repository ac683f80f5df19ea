"""Runs all of whose networks are in half precision (``trainer.precision=bf16-true``)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import worker
from ssl_zoo.callbacks.checkpoint import Terminated
from ssl_zoo.modules.float32 import Float32State
from ssl_zoo.trainer import half_note
from tests.cli.commands import train
from tests.helpers import METHODS, quickly, tiny_batch, tiny_config, tiny_method, train_step, view_sizes
from tests.test_method_runs import assert_same, killed_after

HALF = torch.bfloat16
# A teacher, a bank, a centre, k-means and a covariance: one for each kind of state.
FEW = ("byol", "instdisc")


@contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """Lightning makes it the type of new tensors inside of a training step."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", quickly(METHODS))
def test_two_steps_are_finite_and_state_stays_float32(name: str) -> None:
    method = tiny_method(name).to(HALF)
    for step in range(2):
        with made_in(HALF):
            out = train_step(method, tiny_batch(view_sizes(name), step, HALF))
        assert math.isfinite(out["loss"]) and out["loss"].dtype == torch.float32
        assert all(bool(gradient.isfinite().all()) for gradient in out["gradients"].values())
    stateful = [part for part in method.modules() if isinstance(part, Float32State)]
    kinds = {buffer.dtype for part in stateful for buffer in part.buffers(recurse=False) if buffer.is_floating_point()}
    assert kinds <= {torch.float32, torch.float64}
    assert HALF in {p.dtype for p in method.parameters() if p.requires_grad}


def fit(name: str, folder: Path, kill: bool = False, resume: bool = False) -> dict[str, Any]:
    """The last checkpoint of a run of twelve steps."""
    extra = ["data.source.samples=48", "data.source.val_samples=16", "trainer=cpu", "trainer.max_epochs=2",
             "trainer.precision=bf16-true", "logger=none", "callbacks=none"]  # fmt: skip
    cfg, last = tiny_config(name, extra), folder / "checkpoints" / "last.ckpt"
    cfg.run_dir, cfg.resume = str(folder), str(last) if resume else None
    if kill:
        stop = {"_target_": "tests.cli.kill.Kill", "step": killed_after(name), "signal_name": "SIGTERM"}
        cfg.callbacks = {"kill": stop}
    worker.run(cfg, folder)
    return torch.load(last, weights_only=True)


@pytest.mark.parametrize("name", quickly(METHODS, FEW))
def test_killed_at_any_step_it_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = fit(name, tmp_path / "whole")
    with pytest.raises(Terminated):
        fit(name, tmp_path / "parts", kill=True)
    resumed = fit(name, tmp_path / "parts", resume=True)
    assert resumed["global_step"] == whole["global_step"] == 12
    for part in ("state_dict", "optimizer_states"):
        assert_same(whole[part], resumed[part])


def test_a_command_in_half_precision_trains_and_says_what_that_means(tmp_path: Path) -> None:
    done = train("method=byol", "trainer.precision=bf16-true", "method.predictor.hidden=[8]", "hydra.run.dir=run",
                 cwd=tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    assert "trainer.precision=bf16-true: weights and the optimizer's moments" in re.sub(r"[\s│]+", " ", done.out)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    kinds = {name: value.dtype for name, value in state.items() if value.is_floating_point()}
    assert {kind for name, kind in kinds.items() if name.startswith("teacher.")} == {torch.float32}
    assert (kinds["backbone.net.conv1.weight"], kinds["backbone.net.bn1.running_var"]) == (HALF, torch.float32)


def test_other_precisions_have_no_such_note() -> None:
    assert half_note("bf16-mixed") == half_note("32-true") == [] and "16-mixed keeps" in half_note("16-true")[0]
