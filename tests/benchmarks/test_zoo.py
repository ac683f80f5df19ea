"""The measured table: what is run, what is read, what is written."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ssl_zoo.benchmarks import zoo
from tests.patience import until


def finished(folder, first, last, probe):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"probe/top1": probe, "seconds": 61.4}))
    (folder / "metrics.csv").write_text(f"step,knn/top1,train/loss\n0,{first},\n5,,1.5\n10,{last},\n")


def test_a_row_is_the_first_and_the_last_knn_of_a_finished_run(tmp_path):
    finished(tmp_path / "byol", 26.5, 30.25, 28.9)
    found = zoo.row(tmp_path / "byol")
    assert (found["kNN untrained"], found["kNN trained"], found["gain"]) == (26.5, 30.25, 3.75)
    assert zoo.row(tmp_path / "absent") is None
    assert zoo.markdown([found]).splitlines()[-1] == "| `byol` | 26.5 | 30.2 | +3.8 | 28.9 |  | 61 |"


def test_finished_runs_are_kept_and_the_table_and_the_picture_are_written(tmp_path, capsys):
    for name, last in (("byol", 30.0), ("simclr", 35.0)):
        finished(tmp_path / name, 26.0, last, None)
    assert zoo.main(["--methods", "byol,simclr", "--out", str(tmp_path)]) == 0
    assert [row["method"] for row in json.loads((tmp_path / "zoo.json").read_text())] == ["byol", "simclr"]
    assert (tmp_path / "zoo.png").read_bytes()[:4] == b"\x89PNG"
    assert "byol: finished" in capsys.readouterr().out


def test_an_unfinished_run_goes_on_from_its_checkpoint(tmp_path):
    given = zoo.arguments(["--methods", "byol", "--data", "digits", "--subset", "0", "--out", str(tmp_path), "seed=3"])
    words = zoo.command(given, "byol")
    assert words[-3:] == [f"hydra.run.dir={tmp_path / 'byol'}", "resume=null", "seed=3"]
    assert {"data=digits", "method=byol", "data.subset=null", "trainer.max_epochs=10"} <= set(words)
    (tmp_path / "byol" / "checkpoints").mkdir(parents=True)
    (tmp_path / "byol" / "checkpoints" / "last.ckpt").touch()
    assert f"resume={tmp_path / 'byol' / 'checkpoints' / 'last.ckpt'}" in zoo.command(given, "byol")


def test_a_name_that_is_no_method_is_refused_with_the_names(capsys):
    with pytest.raises(SystemExit):
        zoo.arguments(["--methods", "byol,simclar"])
    assert "there is no simclar; there are " in capsys.readouterr().err


def given_for(tmp_path, methods, *overrides):
    words = ["--methods", methods, "--data", "digits", "--subset", "0", "--out", str(tmp_path)]
    return zoo.arguments([*words, *overrides])


@pytest.mark.parametrize(
    ("methods", "stages"),
    [
        ("crd", ["supervised", "crd"]),
        ("supervised,crd,crd", ["supervised", "crd"]),
        ("distill", ["simclr_v2", "simclr_v2/fine-tuned", "distill"]),
        (
            "noisy_student,distill,simclr_v2",
            ["simclr_v2", "simclr_v2/fine-tuned", "simclr_v2/pseudo-labels", "noisy_student", "distill"],
        ),
    ],
)
def test_what_a_method_learns_from_comes_before_it_and_once(methods, stages, tmp_path):
    assert zoo.order(given_for(tmp_path, methods)) == stages


def test_all_methods_are_one_training_each_and_two_stages_more(tmp_path):
    stages = zoo.order(given_for(tmp_path, "all"))
    assert sorted(stages) == sorted([*zoo.known(), "simclr_v2/fine-tuned", "simclr_v2/pseudo-labels"])


def test_nothing_is_made_for_a_method_that_is_finished(tmp_path):
    finished(tmp_path / "crd", 26.0, 36.0, None)
    assert zoo.order(given_for(tmp_path, "crd,distill"))[0] == "crd"
    assert "supervised" not in zoo.order(given_for(tmp_path, "crd,distill"))


def test_the_commands_are_those_of_the_readme(tmp_path):
    given = given_for(tmp_path, "crd,distill,noisy_student")
    said = {name: zoo.command(given, name)[len(zoo.PROGRAM) :] for name in zoo.order(given)}
    tuned, guessed = tmp_path / zoo.TUNED, tmp_path / zoo.GUESSED
    assert said["simclr_v2/fine-tuned"] == [
        *("evaluate", "protocol=finetune", "data.labels=0.1", "protocol.head_layers=1"),
        f"checkpoint={tmp_path / 'simclr_v2'}",
    ]
    assert said["simclr_v2/pseudo-labels"] == [
        *("pseudo-label", "data.labels=0.1"),
        *(f"out={guessed}", f"checkpoint={tuned}"),
    ]
    assert said["crd"][-1:] == [f"method.teacher.checkpoint={tmp_path / 'supervised'}"]
    assert said["distill"][-2:] == ["data.labels=0.1", f"method.teacher.checkpoint={tuned}"]
    assert said["noisy_student"][-2:] == ["data.labels=0.1", f"data.pseudo_labels={guessed}"]
    assert {said[name][0] for name in ("supervised", "simclr_v2", "crd", "distill", "noisy_student")} == {"train"}


def test_overrides_of_a_method_are_not_for_the_runs_that_are_made_for_it(tmp_path):
    given = given_for(tmp_path, "distill", "seed=3", "method.temperature=0.5", "optimizer.values.lr=0.1")
    assert zoo.command(given, "distill")[-3:] == given.overrides
    words = zoo.command(given, "simclr_v2")
    assert words[-1] == "seed=3" and not {"method.temperature=0.5", "optimizer.values.lr=0.1"} & set(words)


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("crd", "method.teacher.checkpoint=RUN"),
        ("crd", "method.teacher.timm=resnet18"),
        ("noisy_student", "data.pseudo_labels=FILE"),
        ("noisy_student", "method.teacher.checkpoint=RUN"),
    ],
)
def test_another_network_that_the_command_line_names_replaces_the_tables(method, word, tmp_path):
    given = given_for(tmp_path, method, word)
    assert zoo.order(given) == [method]
    assert [w for w in zoo.command(given, method) if w.startswith(("method.teacher", "data.pseudo"))] == [word]


def ended(tmp_path, monkeypatch, lanes, failing=()):
    """What ``run_all`` says of crd, distill, noisy_student and byol, and the events of their stages in order."""
    events = []

    def run(given, name):
        events.append(("begins", name))
        time.sleep(0.02)
        events.append(("ends", name))
        return int(name in failing)

    monkeypatch.setattr(zoo, "run", run)
    given = given_for(tmp_path, "crd,distill,noisy_student,byol")
    given.lanes = lanes
    return dict(zoo.run_all(given, zoo.order(given))), events


@pytest.mark.parametrize("lanes", [1, 2, 20])
def test_a_stage_begins_when_what_it_reads_has_ended_with_any_number_of_lanes(lanes, tmp_path, monkeypatch):
    statuses, events = ended(tmp_path, monkeypatch, lanes)
    assert set(statuses.values()) == {0} and len(statuses) == 8 and Counter(events).most_common(1)[0][1] == 1
    for name in statuses:
        if (reads := zoo.stage(name).reads) is not None:
            assert events.index(("ends", reads)) < events.index(("begins", name))
    running = 0
    for what, _ in events:
        running += 1 if what == "begins" else -1
        assert running <= lanes


def test_what_reads_a_failed_stage_is_not_begun_and_the_others_are(tmp_path, monkeypatch):
    statuses, events = ended(tmp_path, monkeypatch, 2, failing=["simclr_v2"])
    assert {name for name, status in statuses.items() if status is None} == {
        *("simclr_v2/fine-tuned", "simclr_v2/pseudo-labels", "distill", "noisy_student")
    }
    assert {name for name, status in statuses.items() if status == 0} == {"supervised", "crd", "byol"}
    assert len(events) == 2 * 4


def test_a_failure_names_its_log_and_what_it_holds_up(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "PROGRAM", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    words = ["--methods", "crd", "--data", "digits", "--lanes", "1", "--out", str(tmp_path)]
    assert zoo.main(words) == 1
    log = tmp_path / "supervised" / "log.txt"
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"supervised: failed (1), see {log}", "crd: not begun, for it needs supervised"]
    assert log.read_text() == "no such thing\n"


TINY = ["scale.width=4", "data.batch_size=64"]
DIGITS = ["--data", "digits", "--subset", "0", "--epochs", "1", "--lanes", "2"]


@pytest.mark.slow
def test_two_methods_are_trained_side_by_side(tmp_path):
    tiny = ["data.image_size=16", "data.batch_size=16", "backbone.width=4"]
    words = ["--methods", "simclr,byol", "--data", "synthetic", "--subset", "64", "--epochs", "1", "--lanes", "2"]
    assert zoo.main([*words, "--out", str(tmp_path), *tiny]) == 0
    assert {row["method"] for row in json.loads((tmp_path / "zoo.json").read_text())} == {"simclr", "byol"}


@pytest.mark.slow
def test_methods_that_need_a_teacher_make_it_and_are_continued_after_a_kill(tmp_path, capsys):
    words = ["--methods", "distill,noisy_student,crd", *DIGITS, "--out", str(tmp_path), *TINY]
    tuned = tmp_path / zoo.TUNED
    kill_when((tuned / "checkpoints" / "last.ckpt").is_file, words)
    assert (tmp_path / "simclr_v2" / "summary.json").is_file() and not (tuned / "summary.json").exists()
    begun = {name: log_size(tmp_path, name) for name in ("simclr_v2", "supervised", "crd")}

    assert zoo.main(words) == 0
    assert log_size(tmp_path, "simclr_v2") == begun["simclr_v2"]  # it had been finished
    assert [int(line.split(",")[0]) for line in (tuned / "metrics.csv").read_text().splitlines()[1:]][-1] == 49
    names = ["crd", "distill", "noisy_student", "simclr_v2", "supervised"]
    rows = json.loads((tmp_path / "zoo.json").read_text())
    assert [row["method"] for row in rows] == names
    assert all(10 < row["kNN untrained"] < 100 and 10 < row["kNN trained"] < 100 for row in rows)
    assert json.loads((tmp_path / f"{zoo.TUNED}.json").read_text())["samples"] == {"train": 143, "test": 359}
    said = {name: (tmp_path / name / "config.yaml").read_text() for name in names}
    assert f"checkpoint: {tmp_path / 'supervised'}\n" in said["crd"]
    assert f"checkpoint: {tuned}\n" in said["distill"] and "labels: 0.1\n" in said["distill"]
    assert f"pseudo_labels: {tmp_path / zoo.GUESSED}\n" in said["noisy_student"]

    sizes = {name: log_size(tmp_path, name) for name in zoo.STAGES}
    capsys.readouterr()
    assert zoo.main(words) == 0
    assert {name: log_size(tmp_path, name) for name in zoo.STAGES} == sizes
    said = capsys.readouterr().out.splitlines()  # in any order
    assert sorted(said[:-1]) == [f"{name}: finished" for name in ("crd", "distill", "noisy_student")]


def log_size(folder: Path, name: str) -> int:
    log = folder / name / "log.txt"
    return log.stat().st_size if log.is_file() else 0


def kill_when(seen, words):
    """Start the table, and kill it with all its runs at the moment that ``seen`` says."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    table = subprocess.Popen([sys.executable, zoo.__file__, *words], **quiet)
    try:
        until(lambda: seen() or table.poll() is not None, 300)
        assert table.poll() is None
    finally:
        os.killpg(table.pid, signal.SIGKILL)
        table.wait()
