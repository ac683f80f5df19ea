"""Whole runs of every method of conf/method: what watches them changes nothing, what interrupts them neither."""

from __future__ import annotations

import signal
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ssl_zoo import worker
from ssl_zoo.callbacks.checkpoint import Terminated
from tests.helpers import METHODS, quickly, tiny_config

RUN = [
    "data.source.samples=48", "data.source.val_samples=16", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
]  # fmt: skip
STEPS = 12  # in two epochs
OBSERVERS = ("OnlineProbe", "Collapse", "OnlineKNN")


def fit(
    name: str, folder: Path, callbacks: str, kill: bool = False, resume: bool = False, more: Sequence[str] = ()
) -> dict[str, Any]:
    """The last checkpoint of a run."""
    cfg = tiny_config(name, [*RUN, f"callbacks={callbacks}", *more])
    cfg.run_dir, last = str(folder), folder / "checkpoints" / "last.ckpt"
    if kill:
        stop = {"_target_": "tests.cli.kill.Kill", "step": killed_after(name), "signal_name": "SIGTERM"}
        OmegaConf.update(cfg, "callbacks.kill", stop, force_add=True)
    cfg.resume = str(last) if resume else None
    worker.run(cfg, folder)
    return torch.load(last, weights_only=True)


def killed_after(name: str) -> int:
    """Any step but the last: in the middle of an epoch for some methods, at its beginning or end for others."""
    return 1 + zlib.crc32(name.encode()) % (STEPS - 1)


@cache
def watched(name: str, base: Path) -> dict[str, Any]:
    return fit(name, base / name, "default")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(autouse=True)
def the_runs_give_signals_back() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    held = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == held


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every tensor and number of nested containers by its path."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in leaves(value, f"{path}/{key}").items()}
    if isinstance(tree, (list, tuple)):
        return leaves(dict(enumerate(tree)), path)
    return {path: tree}


def assert_same(one: Any, other: Any) -> None:
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    odd = [key for key, value in one.items() if not _equal(value, other[key])]
    assert odd == []


def _equal(one: Any, other: Any) -> bool:
    # A NaN (the centre of an empty cluster) equals itself here.
    return torch.equal(torch.as_tensor(one).nan_to_num(), torch.as_tensor(other).nan_to_num()) if _is_number(one) else (
        one == other
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, float))


@pytest.mark.parametrize("name", quickly(METHODS, ["mae", "moco_v2", "simclr"]))
def test_with_and_without_probes_it_is_the_same(name: str, base: Path, tmp_path: Path) -> None:
    alone, seen = fit(name, tmp_path, "none"), watched(name, base)
    for part in ("state_dict", "optimizer_states"):
        assert_same(alone[part], seen[part])


@pytest.mark.parametrize("name", quickly(METHODS, ["byol", "dino", "instdisc", "moco_v2", "swav"]))
def test_killed_at_any_step_it_goes_on_bit_for_bit(name: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(Terminated, match=f"after step {killed_after(name)};"):
        fit(name, tmp_path, "default", kill=True)
    resumed, whole = fit(name, tmp_path, "default", resume=True), watched(name, base)
    assert resumed["global_step"] == whole["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states"):
        assert_same(whole[part], resumed[part])
    observers = [key for key in whole["callbacks"] if key.startswith(OBSERVERS)]
    assert observers
    assert_same(
        {key: whole["callbacks"][key] for key in observers}, {key: resumed["callbacks"][key] for key in observers}
    )


@pytest.mark.parametrize("name", ["simclr", pytest.param("swav", marks=pytest.mark.slow)])
def test_in_double_precision_it_goes_on_bit_for_bit_too(name: str, tmp_path: Path) -> None:
    double = ["trainer.precision=64-true"]
    whole = fit(name, tmp_path / "whole", "default", more=double)
    with pytest.raises(Terminated):
        fit(name, tmp_path / "parts", "default", kill=True, more=double)
    resumed = fit(name, tmp_path / "parts", "default", resume=True, more=double)
    weights = [x for x in whole["state_dict"].values() if isinstance(x, torch.Tensor) and x.is_floating_point()]
    assert {x.dtype for x in weights} == {torch.float64}
    for part in ("state_dict", "optimizer_states"):
        assert_same(whole[part], resumed[part])


@pytest.mark.parametrize("stop", [5, 6])  # in the middle and at the end of an epoch
def test_limited_by_steps_it_goes_on_bit_for_bit_too(stop: int, tmp_path: Path) -> None:
    short = ["data.source.samples=16", "trainer.max_epochs=-1", "trainer.max_steps=8"]
    whole = fit("simclr", tmp_path / "whole", "none", more=short)
    cfg = tiny_config("simclr", [*RUN, "callbacks=none", *short])
    folder = tmp_path / "parts"
    cfg.run_dir, last = str(folder), folder / "checkpoints/last.ckpt"
    kill = {"_target_": "tests.cli.kill.Kill", "step": stop, "signal_name": "SIGTERM"}
    OmegaConf.update(cfg, "callbacks.kill", kill, force_add=True)
    with pytest.raises(Terminated):
        worker.run(cfg, folder)
    assert torch.load(last, weights_only=True)["global_step"] == stop
    resumed = fit("simclr", folder, "none", resume=True, more=short)
    assert resumed["epoch"] == whole["epoch"] and resumed["global_step"] == 8
    for part in ("state_dict", "optimizer_states"):
        assert_same(whole[part], resumed[part])
