"""Choices that have a file for each scale: named in one word, whatever the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from ssl_zoo import composing, config, sweeps
from ssl_zoo.errors import ConfigError
from tests.cli.test_runs import train

CONF = Path(__file__).parent.parent / "conf"


def blur(cfg) -> float | None:
    found = [op["image/gaussian_blur"]["p"] for op in cfg.augmentation.views[0].ops if "image/gaussian_blur" in op]
    return found[0] if found else None


def test_one_word_takes_the_file_of_the_datas_scale() -> None:
    assert blur(config.load(["augmentation=byol", "data=cifar10"])) is None
    assert blur(config.load(["augmentation=byol", "data=imagenet"])) == 1.0
    assert blur(config.load(["augmentation=byol/large", "data=cifar10"])) == 1.0


def test_a_method_takes_different_files_at_different_scales() -> None:
    assert config.load(["method=byol", "data=cifar10"]).optimizer.optimizer._target_ == "torch.optim.SGD"
    assert config.load(["method=byol", "data=imagenet"]).optimizer.optimizer._target_ == "ssl_zoo.optim.lars.LARS"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "optimizer=byol",
            "optimizer=byol: it has no file for the scale small; leave optimizer out for the method's own",
        ),
        ("augmentation=bylo", "augmentation=bylo: there is no such augmentation; did you mean 'byol'?"),
        ("data=base", "data=base: there is no such data; there are: "),
    ],
)
def test_what_there_is_not(word: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load([word])
    assert str(caught.value).startswith(told)


def test_words_for_hydra_name_the_scale_and_records_do_not() -> None:
    with composing.composer() as composer:
        words = composer.at_scale(["augmentation=byol,gray", "optimizer=sgd", "augmentation=glob(sim*)", "seed=1"])
    scaled = ["augmentation=byol/${scale},gray", "optimizer=sgd"]
    assert words == [*scaled, "augmentation=simclr/${scale},simmim/${scale},simsiam/${scale}", "seed=1"]
    assert [composing.typed(word) for word in words][0] == "augmentation=byol,gray"


def test_a_sweep_in_which_one_is_fixed_is_planned() -> None:
    words = ["augmentation=byol", "seed=0,1", "data=cifar10"]
    assert [job[1] for job in sweeps.expand(words)] == ["seed=0", "seed=1"]


@pytest.mark.slow
def test_a_sweep_over_them_runs(tmp_path: Path) -> None:
    result = train("-m", "augmentation=simclr,moco_v2", "data=synthetic", f"hydra.sweep.dir={tmp_path}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    records = [yaml.safe_load(file.read_text()) for file in sorted(tmp_path.glob("[01]_*/run.json"))]
    assert ["augmentation=simclr" in record["overrides"] for record in records] == [True, False]


@pytest.mark.slow
def test_no_two_files_of_a_group_say_the_same_and_none_only_points_to_another() -> None:
    seen: dict[str, Path] = {}
    for file in sorted(CONF.glob("*/**/*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file))
        if content and set(content) != {"recipe"}:  # a recipe's file is its note: source and name
            key = f"{file.relative_to(CONF).parts[0]} {yaml.safe_dump(content)}"
            assert key not in seen, f"{file} says what {seen[key]} says"
            seen[key] = file
            pointer = set(content) == {"defaults"} and len(content["defaults"]) == 1
            assert not (pointer and file.parent.parent == CONF), f"{file} only points to another"
