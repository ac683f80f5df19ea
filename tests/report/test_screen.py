import re
import shutil
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import nn

from ssl_zoo import build
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.data.image.source import image_info
from ssl_zoo.optim.lengths import planned
from ssl_zoo.optim.recipe import BoundRecipe, OptimizerRecipe
from ssl_zoo.optim.schedules import Progress, WarmupCosine
from ssl_zoo.report import screen as report
from ssl_zoo.report import start
from tests.helpers import tiny_config

INFO = image_info(samples=1000, classes=10, image_size=32, channels=3, batch_size=128)
PROGRESS = Progress(step=0, total=40, steps_per_epoch=4)
CONFIG = OmegaConf.create(
    {
        "card": {"name": "MoCo v2", "paper": "https://arxiv.org/abs/2003.04297", "year": 2020},
        "recipe": {"source": "the authors' README", "expected": "67.5 % linear"},
        "trainer": {"accumulate": 2},
    }
)


class Toy(nn.Module):
    """110 trained parameters, a frozen teacher with 100, and a queue of 1,024,000 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(10, 10)
        self.teacher = nn.ModuleDict({"net": nn.Linear(10, 10, bias=False)}).requires_grad_(False)
        self.queue = nn.Module()
        self.queue.register_buffer("keys", torch.zeros(2000, 128))
        self.queue.register_buffer("cursor", torch.zeros(()))


def bound(method: nn.Module, warmup_epochs: float = 1) -> BoundRecipe:
    recipe = OptimizerRecipe(
        partial(torch.optim.SGD, momentum=0.9),
        {"lr": WarmupCosine(0.3, warmup_epochs=warmup_epochs), "weight_decay": 1e-4},
        {"biases": {"match": "bias", "weight_decay": 0.0, "frozen_until": 7}},
    )
    return recipe.bind(method.named_parameters(), 256)


def screen(config=CONFIG, info: DataInfo = INFO, progress: Progress = PROGRESS, **kwargs) -> dict[str, str]:
    """The screen's lines by their first words; notes under ``note``."""
    method = Toy()
    recipe = bound(method, kwargs.pop("warmup_epochs", 1))
    console = Console(width=160)
    with console.capture() as capture:
        console.print(report.screen(config, method, recipe, info, progress, kwargs.pop("run_dir", "run"), **kwargs))
    rows = [row.strip("│ ") for row in capture.get().splitlines()]
    pairs = [row.split("  ", 1) if "  " in row else row.split(": ", 1) for row in rows if row]
    return {pair[0]: pair[-1].strip() for pair in pairs}


def test_a_recipe_for_short_runs_names_the_published_experiment_beside_it():
    short = {"source": "half of it", "published": "simclr_cifar10_1000ep"}
    own = "half of it; our own for short runs, "
    lines = screen(OmegaConf.create({**CONFIG, "recipe": short}))
    assert lines["recipe"] == own + "the published one is experiment=simclr_cifar10_1000ep"
    lines = screen(OmegaConf.create({**CONFIG, "recipe": {**short, "published": "none"}}))
    assert lines["recipe"] == own + "no published run is among the experiments"
    of_experiment = {**CONFIG, "recipe": short, "expected": {"value": None}}
    assert screen(OmegaConf.create(of_experiment))["recipe"] == "half of it"


@pytest.mark.parametrize(
    ("taken", "scale", "told"),
    [
        (4096, "linear256", "large/simclr was made for 4,096 samples a step, as this run takes"),
        (
            256,
            "sqrt",
            "large/simclr was made for 4,096 samples a step; this run takes 256, and scales its rates to it (sqrt)",
        ),
        (
            256,
            "absolute",
            "large/simclr was made for 4,096 samples a step; this run takes 256, whose rates stay those of the recipe",
        ),
    ],
)
def test_the_screen_tells_for_which_batch_the_recipe_was_made(taken, scale, told):
    recipe = {"name": "large/simclr", "source": "README", "batch": 4096}
    given = {**CONFIG, "recipe": recipe, "data": {"batch_size": taken}, "optimizer": {"lr_scale": scale}}
    assert screen(OmegaConf.create(given))["batch"] == told


def test_the_screen_tells_recipe_steps_samples_and_rates():
    lines = screen(devices=2, augmentation="in batches on the device (cpu)")
    assert lines["method"] == "MoCo v2  2020  https://arxiv.org/abs/2003.04297"
    assert lines["recipe"] == "the authors' README; expected: 67.5 % linear"
    assert lines["data"] == "1,000 samples, 10 classes, image size 32, channels 3"
    assert lines["augmentation"] == "in batches on the device (cpu)"
    assert lines["steps"] == "40 (4 per epoch, 10 epochs)"
    assert lines["samples per step"] == "256 = 2 devices x 64 x 2 accumulated"
    assert lines["learning rate"] == "0 -> 0.3 (step 4) -> 0.0005708"  # 0.15 (1 + cos(35 pi / 36))
    assert lines["parameters"] == "110 trained (backbone 110)"
    assert lines["frozen"] == "teacher (100)"
    assert lines["state"] == "queue.keys [2000, 128] 1.0 MB"
    assert lines["default"].split() == ["1", "100", "0.3", "0.0001"]
    assert lines["biases"].split() == ["1", "10", "0.3", "0", "step", "7"]


def test_a_bare_configuration_has_no_empty_lines():
    lines = screen(OmegaConf.create({}), image_info(1000, None, 32, 1, 128), Progress(8, 40, 4))
    assert lines["method"] == "Toy" and "recipe" not in lines and "augmentation" not in lines
    assert lines["data"] == "1,000 samples, unlabelled, image size 32, channels 1"
    assert lines["steps"] == "40 (4 per epoch, 10 epochs, from step 8)"
    assert lines["samples per step"] == "128 = 1 device x 128"


def test_a_run_counted_in_steps_tells_its_length_and_where_it_goes_on():
    limits = {"max_epochs": -1, "max_steps": 6, "accumulate": 1}
    config = OmegaConf.create({"data": {"batch_size": 256}, "trainer": limits})
    lines = screen(config, progress=planned(config, 1000))
    assert lines["steps"] == "6 (3 per epoch, 2 epochs)"
    assert lines["learning rate"] == "0 -> 0.3 (step 3) -> 0.075"  # 0.15 (1 + cos(2 pi / 3))
    assert screen(config, progress=planned(config, 1000, step=2))["steps"] == "6 (3 per epoch, 2 epochs, from step 2)"


def test_what_is_shown_before_the_first_step_is_planned_by_the_configuration(tmp_path: Path, capsys):
    config = tiny_config("simclr", ["trainer.max_epochs=-1", "trainer.max_steps=300"])
    data = build.build_data(config)
    start.show(config, tmp_path, build.build_method(config, data.info), data, step=200)
    assert "300 (128 per epoch, 3 epochs, from step 200)" in capsys.readouterr().out  # 1,024 samples, 8 a step


def test_a_capped_warmup_is_one_note_for_all_groups():
    lines = screen(warmup_epochs=20, notes=["the probe is off"])
    assert lines["note"] == "the probe is off"
    messages = bound(Toy(), warmup_epochs=20).messages(Progress(0, 40, 4))
    (note,) = report.merged(messages)
    assert note == "default, lr; biases, lr: the warm-up of 80 steps does not fit a run of 40 steps: cut to 4 steps"


def test_a_constant_rate_is_one_number():
    recipe = OptimizerRecipe(torch.optim.SGD, {"lr": 0.1}, lr_scale="absolute").bind(Toy().named_parameters(), 64)
    assert report.learning_rate(recipe, Progress(0, 40, 4)) == "0.1"


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [(torch.optim.SGD, 0), (partial(torch.optim.SGD, momentum=0.9), 1), (torch.optim.AdamW, 2)],
)
def test_the_estimate_equals_what_torch_saves(optimizer, copies: int, tmp_path: Path):
    method = Toy()
    built = OptimizerRecipe(optimizer, {"lr": 0.1}).bind(method.named_parameters(), 256).optimizer
    estimate = report.checkpoint_bytes(method, built)
    assert estimate == (110 + 100 + 2000 * 128 + 1 + copies * 110) * 4
    method.backbone(torch.ones(1, 10)).sum().backward()
    built.step()
    torch.save({"state_dict": method.state_dict(), "optimizer": built.state_dict()}, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size == pytest.approx(estimate, rel=0.01)


def test_shared_weights_are_counted_once():
    method = nn.ModuleList([nn.Linear(10, 10, bias=False)] * 2)
    assert report.checkpoint_bytes(method, torch.optim.SGD(method.parameters(), lr=0.1)) == 400


def test_too_little_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**7, 0, 2 * 10**6))
    text = screen(run_dir=tmp_path / "not" / "yet" / "made")["checkpoints"]
    assert text == "about 1.0 MB each, 1 kept; 2.0 MB free on this disk; NOT ENOUGH: 2.1 MB needed"


def test_a_single_frozen_parameter_is_named():
    method = nn.ModuleDict({"net": nn.Linear(3, 2)})
    method["net"].bias.requires_grad_(False)
    assert report.frozen_parts(method) == ["net.bias (2)"]


@pytest.mark.parametrize(("n", "words"), [(999, "999"), (1500, "1.5 k"), (11_200_000, "11.2 M"), (2 * 10**9, "2.0 G")])
def test_count(n: int, words: str):
    assert report.count(n) == words


@pytest.mark.parametrize(("n", "words"), [(999, "999 B"), (33_554_432, "33.6 MB"), (5 * 10**12, "5.0 TB")])
def test_size(n: int, words: str):
    assert report.size(n) == words


def test_a_methods_capped_warmup_is_a_note_beside_the_optimizers(tmp_path: Path, capsys):
    words = ["trainer.max_epochs=-1", "trainer.max_steps=300", "method.teacher_temperature.warmup_epochs=30"]
    config = tiny_config("dino", words)
    data = build.build_data(config)
    start.show(config, tmp_path, build.build_method(config, data.info), data)
    told = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert (
        "note: method.teacher_temperature: the warm-up of 30 epochs does not fit a run of 3 epochs: cut to 0 epochs"
    ) in told
