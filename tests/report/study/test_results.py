"""What a made sweep shows: cells, means and spreads, verdicts, and the three files."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from ssl_zoo import cli
from ssl_zoo.errors import ConfigError
from ssl_zoo.report.study import command, declared, drawings, sweep
from ssl_zoo.report.study.declared import PAPER, parse
from ssl_zoo.report.study.sweep import Values
from ssl_zoo.report.study.verdict import verdicts
from tests.report.study.made import NODE, run_folder, study, sweep_of

CLEAR = {"false": [30.0, 31.0, 32.0], "true": [40.0, 41.0, 42.0]}


def told(folder: Path, **changes: object) -> list[str]:
    return verdicts(sweep.read(study(**changes), folder))


def test_cells_come_in_the_declared_order_with_the_mean_and_spread_of_their_seeds(tmp_path: Path) -> None:
    results = sweep.read(study(), sweep_of(tmp_path, CLEAR))
    assert list(results.cells) == [("with",), ("without",)]
    assert results.values(("with",), "kNN").numbers == [40.0, 41.0, 42.0]
    assert (results.values(("with",), "kNN").mean, results.values(("with",), "kNN").spread) == (41.0, 1.0)
    assert results.values(("without",), "gain").numbers == [10.0, 11.0, 12.0]
    assert results.values(("without",), PAPER).numbers == [0.1]


def test_the_table_has_the_papers_numbers_beside_ours(tmp_path: Path) -> None:
    text = command.markdown(sweep.read(study(), sweep_of(tmp_path, CLEAR)))
    assert "| method.help | kNN | gain | seconds a run | runs | the paper: percent |" in text
    assert "| with | 41.0 ± 1.0 | 21.0 ± 1.0 | 6 | 3 | 67.5 |" in text
    assert "| without | 31.0 ± 1.0 | 11.0 ± 1.0 | 3 | 3 | 0.1 |" in text
    assert "The paper: yes, by three points (table 1)" in text


def test_an_effect_of_more_than_two_standard_errors_is_shown(tmp_path: Path) -> None:
    # Two means of three with deviation 1: the error of the difference is sqrt(2/3), twice that 1.63.
    (sentence,) = told(sweep_of(tmp_path, CLEAR))
    assert sentence == ("it helps: shown: kNN 41.00 ± 1.00 of with, 31.00 ± 1.00 of without, difference +10.00, "
                        "2 standard errors 1.63")  # fmt: skip


@pytest.mark.parametrize(
    ("others", "kind"),
    [
        ([39.5, 40.5, 41.5], "not shown"),
        ([38.2, 39.2, 40.2], "shown"),
        ([42.8, 43.8, 44.8], "the opposite was measured"),
    ],
)
def test_two_standard_errors_decide(others: list[float], kind: str, tmp_path: Path) -> None:
    (sentence,) = told(sweep_of(tmp_path, {"true": [40.0, 41.0, 42.0], "false": others}))
    assert sentence.startswith(f"it helps: {kind}: ")


def test_one_seed_judges_nothing(tmp_path: Path) -> None:
    (sentence,) = told(sweep_of(tmp_path, {"true": [40.0], "false": [30.0]}))
    assert sentence == ("it helps: cannot be judged: kNN 40.00 of with, 30.00 of without, difference +10.00, with one "
                        "seed; run seed=0,1,2")  # fmt: skip


def test_a_number_and_any_other_label_may_be_what_is_less(tmp_path: Path) -> None:
    sweep_of(tmp_path, {**CLEAR, "maybe": [40.5, 41.5, 42.5]})
    fixed, rest = told(
        tmp_path, claims=[{"says": "a", "more": "with", "less": 35}, {"says": "b", "more": "with", "less": "*"}]
    )
    assert fixed == "a: shown: kNN 41.00 ± 1.00 of with, 35.00 of 35, difference +6.00, 2 standard errors 1.15"
    assert rest.startswith("b: not shown: kNN 41.00 ± 1.00 of with, 41.50 ± 1.00 of maybe")
    assert rest.endswith("(the least of 2 comparisons)")


def test_what_was_not_measured_is_not_judged(tmp_path: Path) -> None:
    assert told(sweep_of(tmp_path, {"true": [40.0, 41.0]})) == [
        "it helps: cannot be judged: there is no run of without"
    ]


def test_failed_runs_are_listed_and_in_no_mean(tmp_path: Path) -> None:
    sweep_of(tmp_path, CLEAR)
    words = ["experiment=made", "method.help=true", "seed=9"]
    run_folder(tmp_path, 9, words, [20.0, 99.0], state="failed", reason="NonFiniteLoss: step 7")
    text = command.markdown(sweep.read(study(limits="much; 100 epochs would"), tmp_path))
    assert "| with | 41.0 ± 1.0 | 21.0 ± 1.0 | 6 | 3 of 4 | 67.5 |" in text
    assert "- 9_byol_cifar10_seed0: failed: NonFiniteLoss: step 7" in text
    assert text.endswith("What this size cannot show: much; 100 epochs would\n")


def test_a_setting_that_was_not_typed_is_read_from_the_configuration(tmp_path: Path) -> None:
    config = {"seed": 4, "method": {"help": False}}
    run_folder(tmp_path, 0, ["experiment=made"], [20.0, 30.0], config=config)
    results = sweep.read(study(), tmp_path)
    assert list(results.cells) == [("without",)] and command.rows(results)[0]["seed"] == "4"


def test_the_report_writes_a_table_a_text_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "load", lambda name: study())
    out = command.report("made", str(sweep_of(tmp_path / "s", CLEAR)), str(tmp_path / "out"))
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["kNN"] for row in rows] == ["40.0", "41.0", "42.0", "30.0", "31.0", "32.0"]
    assert [(row["method.help"], row["paper"], row["state"]) for row in rows][::5] == [
        ("with", "67.5", "finished"), ("without", "0.1", "finished")]  # fmt: skip
    assert (tmp_path / "out" / "results.md").read_text() in out
    assert (tmp_path / "out" / "results.png").stat().st_size > 10_000


def test_a_study_may_name_a_module_that_tells_and_draws_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declared, "load", lambda name: study(module="tests.report.study.own"))
    out = command.report("made", str(sweep_of(tmp_path, CLEAR)))
    assert out.startswith("6 rows, the first with 40.0") and (tmp_path / "results.png").read_text() == "6"


@pytest.mark.parametrize(
    ("words", "state", "message"),
    [
        (None, "", "there is no run in it; train with python train.py -m experiment=made, which prints the folder"),
        (["experiment=other"], "finished", "its runs are of the experiment other; its report is ssl-zoo report other "),
        (["method=byol"], "finished", "its runs are of the experiment none"),
        (["experiment=made"], "failed", "none of its 1 runs is finished (failed: full disk)"),
    ],
)  # fmt: skip
def test_what_is_no_finished_sweep_of_the_study(
    words: list[str] | None, state: str, message: str, tmp_path: Path
) -> None:
    if words is not None:
        run_folder(tmp_path, 0, words, [1.0], state=state, reason="full disk")
    with pytest.raises(ConfigError, match=re.escape(f"ssl-zoo report made {tmp_path}: {message}")):
        sweep.read(study(), tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such folder; give that of a sweep, outputs/sweeps/"):
        sweep.read(study(), tmp_path / "none")


@pytest.mark.parametrize("value, wanted", [
    (True, "true"), ("True", "true"), (None, "null"), ("0.00005", "5e-05"), (5e-5, "5e-05"), ("1e-4", "0.0001"),
    (512, "512"), ("512.0", "512"), ([512, 64], "[512,64]"), ("none", "none"), ("nan", "nan"),
])  # fmt: skip
def test_a_value_is_written_in_one_way(value: object, wanted: str) -> None:
    assert declared.text(value) == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drow": []}, "experiment/made.yaml: study has no 'drow'; did you mean 'draw'?"),
        ({"question": "", "vary": {}}, "experiment/made.yaml: study does not say question, vary"),
        ({"draw": None}, "experiment/made.yaml: study does not say draw (or module)"),
        ({"claims": [{"says": "x", "more": 3, "less": 0}]},
         "experiment/made.yaml: study.claims: more is 3; wanted the labels of a kind of runs"),
        ({"measures": {"kNN": {"lost": "knn/top1"}}},
         "experiment/made.yaml: study.measures.kNN is read by 'lost'; did you mean 'last'?"),
        ({"claims": [{"says": "x", "more": "with", "less": "without", "of": "knn"}]},
         "experiment/made.yaml: study.claims: there is no measure 'knn'; there are: gain, kNN"),
        ({"claims": [{"says": "x", "more": ["with", "b"], "less": 0}]},
         "experiment/made.yaml: study.claims: ['with', 'b'] has 2 labels, and 1 settings vary"),
    ],
)  # fmt: skip
def test_a_file_that_says_what_is_not_known(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("made", {**NODE, **changes})
    assert str(caught.value).startswith(message)


def test_a_drawing_that_there_is_not(tmp_path: Path) -> None:
    results = sweep.read(study(draw=[{"pie": "kNN"}]), sweep_of(tmp_path, CLEAR))
    with pytest.raises(ConfigError, match=r"^experiment/made.yaml: study.draw: there are: against, bars, curves, heat"):
        drawings.draw(results, tmp_path / "x.png")


def test_a_single_number_has_no_spread() -> None:
    assert (Values([3.0]).told(), Values([3.0, 5.0]).told(2), Values([]).told()) == ("3.0", "4.00 ± 1.41", "-")


@pytest.mark.parametrize("words, told", [
    (["simsiam_stopgrat", "x"], "which picture? did you mean 'simsiam_stopgrad'?"),
    (["simsiam_stopgrad"], "RUN is missing, a run folder or a checkpoint; of an experiment, a sweep's folder"),
    (["simsiam_stopgrad", ".", "aut=x"], "simsiam_stopgrad.aut: report has no argument 'aut'; did you mean 'out'?"),
    (["simsiam_stopgrad", "none"], "ssl-zoo report simsiam_stopgrad none: there is no such folder; "),
])  # fmt: skip
def test_wrong_words_of_the_command(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.entry(["report", *words]) == 1
    assert told in capsys.readouterr().err
