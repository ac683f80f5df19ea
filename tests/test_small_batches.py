"""A micro-batch of one sample is refused where it leaves nothing to compare, and trained on where it does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo import build, config, small_batches
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.batch_norm import sees
from ssl_zoo.worker import build_run
from tests.helpers import METHODS, info, quickly, tiny_batch, tiny_config, view_sizes

OWN = ("w_mse",)  # has a sentence of its own: so many rows are whitened together


def settings(batch_size: int, accumulate: int = 1, devices: int = 1) -> Any:
    trainer = {"devices": devices, "num_nodes": 1, "accumulate": accumulate}
    return OmegaConf.create({"data": {"batch_size": batch_size}, "trainer": trainer})


def method_of(net: nn.Module, compares: str | None = None) -> Any:
    """What is asked of a method."""
    net.compares = compares  # type: ignore[assignment]
    net.share_problem = lambda samples: None  # type: ignore[assignment]
    return net


def told(method: Any, *numbers: int) -> str:
    """The sentence about ``numbers``: batch size, accumulate, devices; nothing: it can train."""
    cfg = settings(*numbers)
    try:
        small_batches.check(cfg, method, cfg.data.batch_size // cfg.trainer.accumulate)
    except ConfigError as error:
        return str(error)
    return ""


def test_a_loss_that_compares_samples_wants_two() -> None:
    method = method_of(nn.Linear(2, 2), "batch")
    assert told(method, 1) == (
        "data.batch_size=1, trainer.accumulate=1: a micro-batch of 1 sample over all devices, and Linear compares the "
        "samples of a batch with one another; wanted 2 or more over all devices, try data.batch_size=2"
    )
    assert told(method, 4, 4).endswith("try data.batch_size=8")
    assert told(method, 2) == told(method, 4, 2) == told(method, 2, 1, 2) == ""


def test_one_that_compares_the_samples_of_a_process_wants_two_in_each() -> None:
    method = method_of(nn.Linear(2, 2), "process")
    assert "a micro-batch of 1 sample in each of 2 processes, and Linear compares the samples of a process" in told(
        method, 2, 1, 2
    )
    assert told(method, 2, 1, 2).endswith("wanted 4 or more over all devices, try data.batch_size=4")
    assert told(method, 2) == told(method, 4, 1, 2) == ""


def test_batch_norms_want_two_unless_they_take_no_statistics() -> None:
    method = method_of(nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm2d(2))))
    assert "Sequential has batch norms (0 and 1 more), which take their statistics from a batch; wanted 2" in told(
        method, 1
    )
    assert told(method.eval(), 1) == told(method_of(nn.LayerNorm(2)), 1) == ""


def test_a_batch_norm_to_which_every_second_sample_comes_wants_four() -> None:
    method = method_of(nn.Sequential(sees(nn.Sequential(nn.BatchNorm1d(2)), every=2)))
    assert told(method, 2).endswith("wanted 4 or more over all devices, try data.batch_size=4")
    assert told(method, 4) == ""


def test_a_group_of_batch_norm_is_not_told_to_be_one() -> None:
    words = ["method=moco_v2", "data=synthetic", "trainer=cpu"]
    with pytest.raises(ConfigError, match="batch_norm.group=32 .* and there is 1; try data.batch_size=64"):
        config.quick_check(config.load([*words, "data.batch_size=2", "trainer.accumulate=2"]))


def without_norms(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        module._modules[name] = nn.Identity() if isinstance(child, _BatchNorm) else without_norms(child)
    return module


@pytest.mark.parametrize("name", quickly([name for name in METHODS if name not in OWN]))
def test_every_method_refuses_a_batch_of_one_or_learns_from_it(name: str) -> None:
    cfg = tiny_config(name)
    cfg.data.batch_size, cfg.batch_norm.group = 1, None
    for key in {"queue_size", "hardest_of", "positives"} & set(cfg.method):
        cfg.method[key] = cfg.method[key] and 4
    method: Any = without_norms(build.build_method(cfg, replace(info(), batch_size=1)))
    if method.compares is not None:
        assert method.compares == "batch"
        return
    method.progress = replace(method.progress, step=2, total=10, steps_per_epoch=4)
    method.bind(1)
    moved = 0.0
    for step in range(2):
        method.begin_micro_batch(first=True)
        loss = method.training_loss(first_row(tiny_batch(view_sizes(name), step)))["loss"]
        loss.backward()
        method.on_after_backward()
        moved += sum(float(p.grad.abs().sum()) for p in method.backbone.parameters() if p.grad is not None)
    assert bool(loss.isfinite()) and moved > 1e-3


def first_row(batch: Any) -> Any:
    rng = type(batch.rng)(seed=0, epoch=0, micro=0, slot=batch.rng.slot[:1])
    extra = {key: value[:1] for key, value in batch.extra.items()}
    return replace(batch, views=[x[:1] for x in batch.views], index=batch.index[:1], label=batch.label[:1], rng=rng,
                   extra=extra)  # fmt: skip


@pytest.mark.parametrize("name", ["simclr", "byol", "dinov2"])
def test_it_is_refused_before_the_first_step(name: str) -> None:
    cfg = tiny_config(name, ["data.source.samples=8", "trainer=cpu"])
    cfg.data.batch_size, cfg.resume = 1, None
    with pytest.raises(ConfigError, match="a micro-batch of 1 sample over all devices, and .*; wanted 2 or more"):
        build_run(cfg)
