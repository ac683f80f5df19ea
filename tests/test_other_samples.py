"""Methods on samples that are no images keep the house's promises; a modality is tested because it has generated data.

``conf/data/synthetic_<modality>.yaml`` is tried with the methods that are for this modality alone, and with some that
pass their views on as they are.
"""

from __future__ import annotations

import inspect
import json
import math
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from ssl_zoo import build, config, worker
from ssl_zoo.callbacks.checkpoint import Terminated
from ssl_zoo.data.batch import Batch
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import run as evaluate
from ssl_zoo.export import export
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA
from ssl_zoo.optim.schedules import Progress
from ssl_zoo.samples import cast
from ssl_zoo.signatures import INJECTED, locate
from tests.cli.test_runs import run
from tests.helpers import ALL_METHODS, CONF, ROWS, _narrow, modality, over_ranks, train_step
from tests.pool import GlooPool
from tests.test_method_runs import assert_same

PREFIX = "synthetic_"
MODALITIES = sorted(path.stem.removeprefix(PREFIX) for path in (CONF / "data").glob(f"{PREFIX}*.yaml"))
PASSING = ("simclr", "barlow_twins", "byol", "vicreg")  # their views on as they are
TRIED = [(name, kind) for kind in MODALITIES for name in (*PASSING, *(m for m in ALL_METHODS if modality(m) == kind))]
# One of those that pass views on, and all that are of a modality; of each modality the last one.
FAST = [pair for pair in TRIED if pair[0] not in PASSING[1:]]
ONE = [[pair for pair in FAST if pair[1] == kind][-1] for kind in MODALITIES]
# Sizes of networks for a test of milliseconds, where they have them.
SMALL = {
    "hidden": 8, "width": 8, "out_features": 16, "channels": 8, "depth": 2, "layers": 2, "context": 8, "dim": 8,
}  # fmt: skip
STEPS = 12  # of a whole run, in two epochs
EXACT = torch.float64
# What a method is told besides: there is no run to start from.
TOLD = {"vime_semi": ["method.frozen=false", "data.labels=0.5"]}


def quickly(pairs: list[tuple[str, str]], fast: list[tuple[str, str]]) -> list[Any]:
    """Pairs as parameters of a test."""
    slow = pytest.mark.slow
    return [pytest.param(*pair, marks=() if pair in fast else slow, id="-".join(pair)) for pair in pairs]


@cache
def _composed(name: str, kind: str) -> DictConfig:
    cfg = config.load([
        f"method={name}", f"data={PREFIX}{kind}", "data.source.samples=48", "data.source.val_samples=16",
        f"data.batch_size={ROWS}", "report=false", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
        *TOLD.get(name, []),
    ])  # fmt: skip
    _narrow(cfg.method)
    for key, value in cfg.backbone.items():
        if key in SMALL and isinstance(value, int) and value > SMALL[key]:
            cfg.backbone[key] = SMALL[key]
        elif key in SMALL and OmegaConf.is_list(value):
            cfg.backbone[key] = [min(width, SMALL[key]) for width in value]
    build.check_signatures(cfg)
    return cfg


def tiny(name: str, kind: str) -> DictConfig:
    return deepcopy(_composed(name, kind))


def made(name: str, kind: str) -> tuple[Method, DataModule]:
    """In float64, bound to its optimizer, in training mode; the data with the views of these samples."""
    cfg = tiny(name, kind)
    data = build.build_data(cfg)
    build.check_kind(cfg, data)
    method = build.build_method(cfg, data.info).to(EXACT)
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)  # past the first step of a warm-up, whose rate is 0
    method.bind(ROWS)
    return method.train(), data


def batches(data: DataModule, count: int) -> list[Batch]:
    """The first micro-batches of this rank, in float64."""
    loader = iter(data.train_dataloader())
    found = [data.on_after_batch_transfer(next(loader), 0) for _ in range(count)]
    for batch in found:
        batch.views = [cast(view, EXACT) for view in batch.views]
    return found


def run_steps(name: str, kind: str, steps: int = 3) -> dict[str, Any]:
    """Losses, gradients and states of some steps, on this rank's share of the global batches."""
    method, data = made(name, kind)
    for group in method.bound.optimizer.param_groups:
        # Adam divides by the gradient, and that of a bias before a batch norm is nothing but rounding.
        group.update({"eps": 1e-4} if "eps" in group else {})
    outs = [train_step(method, batch) for batch in batches(data, steps)]
    return over_ranks(method, outs)


def test_there_is_data_of_every_modality_but_images() -> None:
    places = {path.parent.name for path in (CONF.parent / "ssl_zoo/augmentations").glob("*/__init__.py")}
    assert set(MODALITIES) == places - {"image"}
    assert {modality(name) for name in ALL_METHODS} <= {None, *MODALITIES}


@pytest.mark.parametrize(("name", "kind"), quickly(TRIED, FAST))
def test_two_steps_are_finite_and_move_all_that_is_trainable(name: str, kind: str) -> None:
    method, data = made(name, kind)
    before = {key: p.detach().clone() for key, p in method.named_parameters()}
    for batch in batches(data, 2):
        out = train_step(method, batch)
        assert math.isfinite(out["loss"])
    trained = {key for key, p in method.named_parameters() if p.requires_grad}
    assert out["gradients"].keys() == trained
    moved = {key for key, p in method.named_parameters() if not torch.equal(p, before[key])}
    averages = tuple(f"{key}." for key, module in method.named_modules() if isinstance(module, EMA))
    assert trained <= moved and moved - trained <= {key for key in before if key.startswith(averages)}


@pytest.mark.parametrize(("name", "kind"), quickly(TRIED, ONE))
def test_saved_and_loaded_it_goes_on_bit_for_bit(name: str, kind: str) -> None:
    method, data = made(name, kind)
    first, second, third = batches(data, 3)
    for batch in (first, second):
        train_step(method, batch)
    copy, _ = made(name, kind)
    copy.load_state_dict(method.state_dict())
    copy.bound.optimizer.load_state_dict(deepcopy(method.bound.optimizer.state_dict()))
    copy.progress = method.progress
    assert train_step(method, third)["loss"] == train_step(copy, deepcopy(third))["loss"]
    assert_same(method.state_dict(), copy.state_dict())


@pytest.mark.parametrize(("name", "kind"), quickly(TRIED, ONE))
def test_two_processes_equal_one(name: str, kind: str, pool: GlooPool) -> None:
    one = run_steps(name, kind)
    for two in pool.run(run_steps, name, kind):
        torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-9, atol=1e-9)
        for part in ("gradients", "state"):
            assert two[part].keys() == one[part].keys()
            for key, value in one[part].items():
                other = two[part][key]
                torch.testing.assert_close(other, value, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize(("name", "kind"), [pair for pair in TRIED if pair[0] not in PASSING])
def test_every_scalar_of_the_signature_is_in_the_yaml(name: str, kind: str) -> None:
    node = config.load([f"method={name}", f"data={PREFIX}{kind}"]).method
    assert set(inspect.signature(locate(node._target_)).parameters) - set(INJECTED) - set(node) == set()


@pytest.mark.parametrize(("name", "kind"), [pair for pair in TRIED if pair[0] not in PASSING])
def test_on_other_samples_it_is_refused_with_a_sentence(name: str, kind: str) -> None:
    cfg = config.load([f"method={name}", "data=synthetic", "augmentation=gray", "backbone=resnet8"])
    with pytest.raises(ConfigError, match=f"(?s)is for samples of the kind '{kind}'.*data={PREFIX}{kind} are some"):
        build.check_signatures(cfg)


@pytest.mark.parametrize("kind", MODALITIES)
def test_views_and_networks_of_other_samples_are_refused_with_a_sentence(kind: str) -> None:
    for other in {*MODALITIES} - {kind}:
        theirs, cfg = tiny("simclr", other), tiny("simclr", kind)
        cfg.augmentation = theirs.augmentation
        message = f"is for samples of the kind '{other}', and those of the data are of the kind '{kind}'"
        with pytest.raises(ConfigError, match=message):
            build.build_data(cfg)
        cfg = tiny("simclr", kind)
        cfg.backbone = theirs.backbone
        data = build.build_data(cfg)
        with pytest.raises(ConfigError, match="backbone"):
            build.build_method(cfg, data.info).training_loss(next(iter(batches(data, 1))))


def fit(
    name: str, kind: str, folder: Path, callbacks: str = "default", kill: bool = False, resume: bool = False
) -> dict[str, Any]:
    """The last checkpoint of a run."""
    cfg, last = tiny(name, kind), folder / "checkpoints" / "last.ckpt"
    cfg.callbacks = config.load([f"method={name}", f"data={PREFIX}{kind}", f"callbacks={callbacks}"]).callbacks
    cfg.run_dir, cfg.resume = str(folder), str(last) if resume else None
    if kill:
        stop = {"_target_": "tests.cli.kill.Kill", "step": STEPS // 2 + 1, "signal_name": "SIGTERM"}
        OmegaConf.update(cfg, "callbacks.kill", stop, force_add=True)
    worker.run(cfg, folder)
    return torch.load(last, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), TRIED)
def test_probes_change_nothing_and_a_killed_run_goes_on_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    whole, alone = fit(name, kind, tmp_path / "whole"), fit(name, kind, tmp_path / "alone", "none")
    with pytest.raises(Terminated, match=f"after step {STEPS // 2 + 1};"):
        fit(name, kind, tmp_path / "parts", kill=True)
    resumed = fit(name, kind, tmp_path / "parts", resume=True)
    assert resumed["global_step"] == whole["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states"):
        assert_same(whole[part], alone[part])
        assert_same(whole[part], resumed[part])
    assert_same(whole["callbacks"], resumed["callbacks"])


JUDGED = {
    "knn": ["protocol.k=5", "protocol.also=[]"],
    "linear": [],
    "svm": ["protocol.C=[1.0]"],  # of so few samples it would be infinite
    "clustering": [],
    "retrieval": [],
    "verification": [],
    "finetune": ["protocol.trainer.max_epochs=1", f"protocol.batch_size={ROWS}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODALITIES)
def test_it_is_judged_by_every_protocol_and_taken_away(kind: str, tmp_path: Path) -> None:
    fit("simclr", kind, tmp_path)
    for protocol, more in JUDGED.items():
        cfg = config.load([f"checkpoint={tmp_path}", f"protocol={protocol}", "device=cpu", *more], "evaluate")
        found = evaluate(cfg)
        (measure,) = {"top1", "acc", "map"} & {*found}
        assert 0 < found[measure] <= 100, protocol
    file = export(tmp_path, "safetensors")
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["verified"]["difference"] == 0 and card["load"].startswith(f"from ssl_zoo.backbones.{kind}.")
    assert set(card["data"]) >= set(torch.load(tmp_path / "checkpoints/last.ckpt")["ssl_zoo"]["data_info"]["facts"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODALITIES)
def test_its_views_and_its_table_at_the_end_are_drawn(kind: str, tmp_path: Path) -> None:
    words = ["data.source.samples=64", "data.source.val_samples=32", "data.batch_size=16", "trainer.max_epochs=2"]
    words += ["method=simclr", f"data={PREFIX}{kind}", "trainer=cpu", "hydra.run.dir=run"]
    done = run("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"views.png", "curves.png", "metrics.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    found = json.loads((tmp_path / "run/summary.json").read_text())
    source = build.build_data(tiny("simclr", kind)).train.source
    assert found[source.baseline_name]["linear"] > 25 and found["untrained network"]["linear"] > 0
