"""``ssl-zoo methods``: cards that agree with the classes, filters, order, differences, and widths of a screen."""

from __future__ import annotations

import pytest
import yaml

from ssl_zoo import cli
from ssl_zoo.report import difference, measured, methods
from ssl_zoo.signatures import locate
from tests.helpers import ALL_METHODS, CONF, modality


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.entry(["methods", *words]) == 0
    return capsys.readouterr().out


def named(shown: str) -> list[str]:
    """Methods of a list for narrow screens, in its order."""
    return [line.split()[0] for line in shown.splitlines()[1:] if line.strip() and not line.startswith(" ")]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", ALL_METHODS)
def test_cards_say_what_the_classes_say(name: str) -> None:
    card = methods.cards()[name]
    assert {*methods.CHOICES, "name", "paper", "year", "stage", "negatives", "ema", "heads", "healthy"} <= card.keys()
    own = modality(name)
    assert str(card.get("samples", "")).startswith(own or "") and ("samples" in card) == (own is not None)
    target = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())["method"].get("_target_")
    if target:
        assert ("labels" in card) == locate(target).needs_labels, "card: labels: needed, where the class needs them"


def test_all_are_listed_with_their_choices_the_most_accurate_first(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys)
    order = named(shown[shown.index("\n\n") :])
    known = [name for name in measured.measured() if name in ALL_METHODS]
    assert sorted(order) == ALL_METHODS and order[: len(known)] == known
    assert "byol  (2020, without negatives, kNN 30.0 (+3.4))" in shown
    assert "similarity      cosine" in shown and max(map(len, shown.splitlines())) <= 80


def test_on_a_wide_screen_the_choices_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = told(capsys, "stage=without negatives")
    (head,) = (line for line in shown.splitlines() if "representation" in line)
    assert [word in head for word in ("method", "kNN", *methods.CHOICES)] == [True] * 7
    assert max(map(len, shown.splitlines())) == 120 and "simclr" not in shown


@pytest.mark.parametrize(
    ("words", "those", "not_those"),
    [
        (["--no-negatives"], {"byol", "dino", "mae"}, {"simclr", "moco_v2", "supcon"}),
        (["negatives=true", "stage=transformers"], {"moco_v3"}, {"dino"}),
        (["--needs-labels"], {"supcon", "supervised", "vime_semi"}, {"simclr", "scarf"}),
        (["labels=false", "--modality=table"], {"scarf", "vime", "simclr"}, {"vime_semi", "graphcl", "supcon"}),
        (["--stage", "masked images"], {"mae", "simmim"}, {"ibot"}),
        (["modality=graph", "--no-negatives"], {"byol"}, {"graphcl", "ts2vec"}),
    ],
)  # fmt: skip
def test_filters(words: list[str], those: set[str], not_those: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, *words)
    found = set(named(shown[shown.index("\n\n") :]))
    assert those <= found and not not_those & found
    assert shown.startswith(f"{len(found)} of {len(ALL_METHODS)} methods, ")


def test_what_is_for_one_kind_of_samples_alone_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "modality=graph")
    assert named(shown[shown.index("\n\n") :])[0] == "graphcl"


def test_the_difference_of_two_methods_is_card_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "byol", "--diff", "simsiam", "data=imagenet")
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("negative cosine with", "view 1 ", "LARS", "method.stop_gradient", "warmup_epochs "):
        assert words in shown
    assert "negatives" not in shown and "healthy" not in shown and "recipe (data=imagenet)" in shown
    assert "card: no difference" in told(capsys, "byol", "diff=byol")


def test_only_what_differs_is_told() -> None:
    one, other = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}
    assert [*difference.differing(one, other)] == [("b", "2", "4"), ("c", "3", "-"), ("d", "-", "5")]


def test_a_recipe_is_told_by_its_keys() -> None:
    found = difference.recipe(["method=swav", "data=imagenet"])
    assert found["view 2"] == found["view 1"] == "size 224" and found["method"] == "SwAV"
    assert found["view 2 random_resized_crop"].startswith("scale [0.14, 1]")
    assert found["view 3-8"] == "size 96, kind local"
    assert found["method.projector"] == "MLP" and not any("_target_" in key for key in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bylo"], "bylo: there is no such method; did you mean 'byol'?"),
        (["byol", "diff=simsam"], "simsam: there is no such method; did you mean 'simsiam'?"),
        (["stage=mask"], "stage=mask: did you mean 'masks'?"),
        (["--modality", "graphs"], "modality=graphs: did you mean 'graph'?"),
        (["negatives=no"], "negatives=no: there are: false, true"),
        (["--stages=masks"], "--stages=masks: did you mean 'stage'?; wanted ssl-zoo methods [NAME [diff=OTHER]]"),
        (["byol", "simsiam"], "byol simsiam: one method at most; what differs between two: byol diff=simsiam; wanted"),
        (["diff=byol"], "diff=byol: diff wants two methods and nothing else, NAME diff=OTHER; wanted"),
        (["byol", "labels=true"], "byol labels=true: filters are for the list of all methods, and out=PAGE.md for"),
        (["--stage"], "stage=: there are: "),
    ],
)  # fmt: skip
def test_what_there_is_not_is_told_with_what_is_near(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.entry(["methods", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: ssl-zoo methods {said}")
