"""The table of experiments, and what recipes say beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssl_zoo import cli, composing
from ssl_zoo.errors import ConfigError
from ssl_zoo.report import experiments, pages
from tests.golden.recipes.waivers import WAIVERS

CONF = Path(__file__).parents[2] / "conf"
HEAD = (
    "# @package _global_\n# X, README of a/x: 9 epochs.\n# Nobody else did.\n# python train.py experiment=x   (two)\n"
)
MARKED = ("views", "lr_rule", "lr_schedule", "lr_groups", "batch", "optimizer")  # others are details of the same recipe
NUMBER = "expected:\n  value: 7.5\n  measure: STL-10 top-1, of all, percent, {}; not reproduced here\n"


def test_a_file_is_read_as_comment_commands_and_number():
    one = experiments._read("x", f"{HEAD}defaults: []\n{NUMBER.format('as its authors report it')}")
    assert one.text == "X, README of a/x: 9 epochs. Nobody else did."
    assert one.commands == ["python train.py experiment=x"]
    assert one[2:] == ("7.5", "STL-10 top-1, of all", "as its authors report it", "no", None)


def test_what_differs_stands_beside_the_number():
    one = experiments._read("x", HEAD + NUMBER.format("Y's own number") + "  differs: views without blur\n")
    assert one.number == "7.5 (not the published recipe: views without blur)" and one.whose == "Y's own number"
    assert one.told()[0].startswith("7.5 (not the published recipe: views without blur): STL-10 top-1, of all, percent")
    assert experiments._read("x", HEAD + "expected: {value: null}\n").told() == []


def test_a_number_of_nobody_is_refused():
    with pytest.raises(
        ConfigError, match=r"^experiment/x.yaml: expected.measure=top-1; wanted 'WHAT, percent, WHOSE; not"
    ):
        experiments._read("x", HEAD + "expected: {value: 7.5, measure: top-1}\n")


def test_numbers_of_runs_with_a_waiver_on_views_rate_batch_or_optimizer_say_that_they_differ():
    waived = {run for run, field in WAIVERS if field.partition(".")[0] in MARKED}
    numbers = {name: one.number for name, one in experiments.experiments().items() if one.number != experiments.NONE}
    marked = {name for name, number in numbers.items() if "not the published recipe" in number}
    assert waived & set(numbers) and waived & set(numbers) <= marked


def test_the_table_of_studies_says_what_the_small_forms_have_shown(monkeypatch):
    large = {"question": "Why?", "answer": "so"}
    known = {
        "a": experiments.Experiment("", ["x"], study=large),
        "a_tiny": experiments.Experiment("", ["x"], study={"measured": {"found": "it does", "runs": 6, "minutes": 4}}),
        "b": experiments.Experiment("", ["x"], study=large),
        "b_tiny": experiments.Experiment("", ["x"], study={"limits": "much"}),
        "c": experiments.Experiment("", ["python train.py experiment=c"]),
    }
    monkeypatch.setattr(experiments, "experiments", lambda: known)
    rows = experiments.studies().splitlines()[2:]
    assert rows == ["| `a` | Why? | so | it does | 6 | 4 |", "| `b` | Why? | so | not yet measured |  |  |"]
    assert experiments.markdown().splitlines()[2:] == ["| `python train.py experiment=c` | none |  |  |  |"]


def test_the_command_of_an_experiment_is_its_own():
    for name, one in experiments.experiments().items():
        words = one.commands[0].split()
        assert words[:2] == ["python", "train.py"] and f"experiment={name}" in words


def test_the_command_prints_those_of_a_name(capsys):
    assert cli.entry(["experiments", "swav_imagenet_200ep"]) == 0
    shown = capsys.readouterr().out
    assert "experiment=swav_imagenet_200ep_bs256" in shown and "72.7: ImageNet linear top-1 of ResNet-50" in shown
    assert "swav_imagenet_400ep" not in shown
    assert cli.entry(["experiments"]) == 0 and "byol_imagenet_300ep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiments", "bylo"], "ssl-zoo experiments bylo: there is no such experiment; "),
        (["methods", "a", "b"], "ssl-zoo methods a b: wanted one word at most, a name or out=PAGE.md"),
        (["methods", "x=1"], "ssl-zoo methods x=1: wanted one word at most, a name or out=PAGE.md"),
        (["experiments", "out=x.md"], "out=x.md: wanted a page with the lines <!-- experiments --> and <!-- "),
    ],
)  # fmt: skip
def test_words_that_it_does_not_know(words, told, capsys):
    assert cli.entry(words) == 1
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_a_page_is_renewed_between_its_remarks(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- stages -->\nold\n<!-- /stages -->\nafter\n")
    assert cli.entry(["methods", f"out={page}"]) == 0
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], lines[2]) == ("before", "after", "| stage | `method=` |") and "old" not in lines
    assert pages.renew(page.read_text(), {"stages": lambda: "new"}).splitlines()[2:4] == ["new", "<!-- /stages -->"]


def of_file(path: Path, key: str) -> Any:
    return OmegaConf.select(OmegaConf.load(path), key)


def test_a_recipe_of_the_large_scale_says_for_which_batch_it_was_made():
    for path in CONF.glob("recipe/large/*.yaml"):
        batch = of_file(path, "recipe.batch")
        assert isinstance(batch, int) and of_file(path, "recipe.name") == f"large/{path.stem}", path
        assert of_file(path, "data.batch_size") in (None, batch), path


def test_a_recipe_for_short_runs_names_the_published_experiment_beside_it():
    for path in CONF.glob("recipe/small/*.yaml"):
        assert of_file(path, "recipe.source") and of_file(path, "recipe.name") == f"small/{path.stem}", path
        published = of_file(path, "recipe.published")
        assert published == "none" or (CONF / "experiment" / f"{published}.yaml").is_file(), path


@pytest.mark.slow
def test_a_large_recipe_takes_its_batch_if_its_rate_does_not_follow():
    with composing.composer() as composer:
        for method in (path.stem for path in CONF.glob("recipe/large/*.yaml")):
            cfg = composer.load([f"method={method}", "data=imagenet"])
            follows = cfg.optimizer.lr_scale in ("linear256", "sqrt")
            assert follows or cfg.data.batch_size == cfg.recipe.batch, method


@pytest.mark.slow
def test_an_experiment_takes_the_batch_of_its_recipe_and_is_none_for_short_runs():
    with composing.composer() as composer:
        for name in experiments.experiments():
            cfg = composer.load([f"experiment={name}"])
            assert cfg.recipe.batch in (None, cfg.data.batch_size), name
            whole = cfg.expected is not None or cfg.study is not None
            assert cfg.recipe.published is None or whole or name in ("cifar10_quick", "cifar10_tiny")
