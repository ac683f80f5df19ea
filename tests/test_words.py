"""The words of a command line: options, spellings that other tools write, and quoting that really works."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_zoo import composing, config, words
from ssl_zoo.errors import ConfigError

AGENT = "(in a sweep of W&B, write ${args_no_hyphens} for ${args} in its command)"
VALUES = (
    "/data/a(b)/x=1,it's", "/a(b)", "/d/x=1", "it's", 'say "x"', "a,b", "a b", " a ", "$HOME/x", "${seed}",
    "${oc.env:HOME}", "a:b", "[a", "[a]", "{a: 1}", "a]", "a\\", "a\\'b", '\\"', "#a", "a;b&c",
    "ä", "a!b", "~/x", "`x`", "<x>", "a'b\"c",
    "interval(1,2)", "choice(a,b)", "null", "1", "true", "", "a\nb", "$(ls)", "100%", "*",
)  # fmt: skip


def message(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        words.parse(words.split(argv)[1])
    return str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_the_quoting_that_is_advised_gives_the_value_letter_for_letter(value: str) -> None:
    (word,) = shlex.split(words.as_it_stands("data.pseudo_labels", value))
    assert config.plain(config.load([word]))["data"]["pseudo_labels"] == value


@pytest.mark.parametrize("value", [value for value in VALUES if value])
def test_a_real_shell_hands_over_what_shlex_does(value: str) -> None:
    advice = words.as_it_stands("k", value)
    done = subprocess.run(["bash", "-c", f"printf %s {advice}"], capture_output=True, text=True, check=True)
    assert [done.stdout] == shlex.split(advice)


@pytest.mark.parametrize("word", ["data.root=/data/a(b)/x=1,it's", "hydra.run.dir=runs/a(b)", "data.root=a;b"])
def test_a_word_that_cannot_be_read_is_told_with_the_quoting_that_works(word: str) -> None:
    text = message([word])
    key, _, value = word.partition("=")
    assert text.startswith(f"cannot read {word!r}: ") and "Exception" not in text and "Error" not in text
    assert text.endswith(f"; for the value as it stands write {words.as_it_stands(key, value)}")
    (fixed,) = words.parse(shlex.split(words.as_it_stands(key, value)))
    assert fixed.value() == value


@pytest.mark.parametrize("value", [value for value in VALUES if value])
def test_a_setting_that_is_printed_works_when_it_is_pasted(value: str) -> None:
    for wanted in (value, [value, "/plain"]):
        pasted = subprocess.run(
            ["bash", "-c", f"printf %s {words.setting('data.pseudo_labels', wanted)}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        (override,) = words.parse([pasted])
        read = OmegaConf.create({"x": override.value()})
        assert OmegaConf.to_container(read, resolve=True) == {"x": wanted}


def test_a_setting_is_quoted_only_where_it_must_be() -> None:
    assert words.setting("data.root", "/a/b.csv") == "data.root=/a/b.csv"
    assert words.setting("data.root", "/a b") == "'data.root=\"/a b\"'"
    assert words.setting("data.root", ["/a", "/b c", "/d,e"]) == "'data.root=[/a,/b c,\"/d,e\"]'"
    assert words.setting("a", "null") == "'a=\"null\"'"


def test_the_shorter_of_two_ways_to_quote_is_advised() -> None:
    assert words.as_it_stands("a", "it's") == r'''"a='it\'s'"'''
    assert words.as_it_stands("a", "x(y)") == """'a="x(y)"'"""


def test_a_comma_in_a_single_run() -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(["data.root=/a,b", "hydra.run.dir=c,d", "seed=range(3)"])
    comma = "a comma separates the jobs of a sweep; add -m to run them, write"
    assert str(caught.value).splitlines() == [
        f"data.root=/a,b: {comma} 'data.root=[/a,b]' for a list, or 'data.root=\"/a,b\"' for the value as it stands",
        f"hydra.run.dir=c,d: {comma} 'hydra.run.dir=[c,d]' for a list, or 'hydra.run.dir=\"c,d\"' for the value as it "
        "stands",
        "seed=range(3): several values; add -m to run a job for each, or give one of them",
    ]


@pytest.mark.parametrize("argv, typed, meant", [
    (["--method=byol", "--optimizer.values.lr=0.1"], "--method=byol --optimizer.values.lr=0.1",
     "method=byol optimizer.values.lr=0.1"),
    (["--method", "byol", "seed=1"], "--method byol", "method=byol"),
    (["-method=byol"], "-method=byol", "method=byol"),
    (["--data.root=/a b"], "--data.root=/a b", "'data.root=/a b'"),
])  # fmt: skip
def test_settings_with_hyphens(argv: list[str], typed: str, meant: str) -> None:
    assert message(argv) == f"{typed}: a setting has no hyphens before it; write {meant} {AGENT}"


@pytest.mark.parametrize("argv, typed", [
    (["method:byol"], "method:byol"), (["method", "byol"], "method byol"), (["method=", "byol"], "method= byol"),
    (["method", "=byol"], "method =byol"),
])  # fmt: skip
def test_a_setting_without_its_equals_sign(argv: list[str], typed: str) -> None:
    assert message(argv) == f"{typed}: wanted key=value; write method=byol"


def test_a_lonely_word_and_a_misspelt_option() -> None:
    told = "byol: a word without an equals sign; wanted key=value, for example method=byol"
    assert message(["byol", "seed=1"]) == told
    assert message(["--multirum"]) == "--multirum: there is no such option; did you mean '--multirun'?"


def test_options_of_hydras_keep_their_values() -> None:
    argv = ["-m", "method=byol", "--config-dir", "here", "--cfg=job", "--info", "defaults", "-p", "method", "~logger"]
    options, overrides = words.split(argv)
    assert options == ["-m", "--config-dir", "here", "--cfg=job", "--info", "defaults", "-p", "method"]
    assert overrides == ["method=byol", "~logger"]


def test_a_folder_of_configurations_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a(b), it's"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    assert config.load([*words.search_path(["--config-dir", str(folder)]), "experiment=mine"]).seed == 7


@pytest.mark.parametrize("choice, package", [
    ("hydra/sweeper=optuna", "'ssl_zoo[optuna]'"), ("hydra/launcher=submitit_slurm", "'ssl_zoo[slurm]'"),
    ("hydra/launcher=joblib", "hydra-joblib-launcher"),
])  # fmt: skip
def test_a_plugin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, choice: str, package: str) -> None:
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        config.load(words.split([choice])[1])
    assert str(caught.value) == f"{choice}: its plugin is not installed; pip install {package}"


@pytest.mark.parametrize("argv", [
    ["method=byol", "seed=3", "method.momentum.start=0.5"],
    ["data.root='a b'", "trainer.clip={mode: global, value: 1}", "method.projector.hidden=[4,5]"],
    ["recipe={name: a}", "recipe.name=b", "recipe.name=c"],
    ["+new.key=3", "seed=${evaluate_every}"],
    pytest.param(["~recipe.source", "++method.more=1"], marks=pytest.mark.slow),
    pytest.param(["hydra.run.dir=x", "trainer.max_epochs=null"], marks=pytest.mark.slow),
    pytest.param(["callbacks=[nan_guard,progress]", "experiment=cifar10_quick"], marks=pytest.mark.slow),
])  # fmt: skip
def test_sharing_what_choices_make_gives_what_hydra_composes(argv: list[str]) -> None:
    with composing.composer() as composer:
        shared = [composer.load(argv) for _ in range(2)]
        own = composing._compose("train", argv)
    assert shared[0] == shared[1] == own
    assert [list(map(str, cfg)) for cfg in shared] == [list(map(str, own))] * 2
