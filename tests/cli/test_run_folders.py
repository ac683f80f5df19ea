"""A run folder belongs to one configuration, one data set, one living process: what starts may do to earlier runs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo import runs
from tests.cli.commands import TINY, kill_at, run, train
from tests.cli.test_runs import assert_same, weights

CONSTANT = "optimizer.values.lr=0.05"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def record(folder: Path) -> runs.Record:
    found = runs.read_record(folder)
    assert found is not None
    return found


def pictures(folder: Path, seed: int, count: int = 16) -> Path:
    folder.mkdir(parents=True)
    draw = np.random.RandomState(seed)
    for i in range(count):
        Image.fromarray(draw.randint(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{i:03}.png")
    return folder


def folder_words(root: str) -> list[str]:
    return ["data=folder", f"data.root={root}", "data.image_size=16", "data.batch_size=8", "data.workers=0", *TINY[5:]]


def on_folder(root: str, *words: str, cwd: Path):
    return run("train", *folder_words(root), *words, cwd=cwd)


# Whose folder it is


def test_a_start_in_an_occupied_folder_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", cwd=tmp_path).code == 0
    before = content(tmp_path / "a")
    for words, message in (
        ([], "holds a run already (finished); resume=auto continues it, overwrite=true moves it aside"),
        (["seed=1"], "holds a run of another configuration (seed: 0, now 1; data.seed: 0, now 1); overwrite=true"),
        (["resume=auto", "seed=1"], "holds a run of another configuration (seed: 0, now 1"),
    ):
        done = train("hydra.run.dir=a", *words, cwd=tmp_path)
        assert done.code == 1 and message in done.err, done
        assert "Traceback" not in done.err and "╭" not in done.out
        assert content(tmp_path / "a") == before


@pytest.mark.slow
def test_overwrite_moves_aside_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", kill_at(9), "trainer.checkpoint_every=2", cwd=tmp_path).code == -9
    (tmp_path / "a" / "notes.txt").write_text("mine")
    old = (tmp_path / "a" / "checkpoints" / "last.ckpt").read_bytes()
    # It dies before its first save: the earlier run's checkpoint must not become its own.
    done = train("hydra.run.dir=a", "seed=1", "overwrite=true", kill_at(2), cwd=tmp_path)
    assert done.code == -9 and "overwrite=true: the earlier run is in" in done.out
    (aside,) = (tmp_path / "a").glob("old-*")
    assert (aside / "checkpoints" / "last.ckpt").read_bytes() == old and record(aside).identity["seed"] == 0
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "a" / "checkpoints" / "last.ckpt").exists()
    done = train("hydra.run.dir=a", "seed=1", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "ended before its first checkpoint and begins again" in done.out
    rows = list(csv.DictReader((tmp_path / "a" / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(13))  # none of the older run's
    alone = train("hydra.run.dir=b/c", "seed=1", cwd=tmp_path)
    assert alone.code == 0
    shutil.rmtree(aside)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.slow
def test_a_summary_that_is_older_than_the_run_finishes_nothing(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", kill_at(8), cwd=tmp_path).code == -9
    (tmp_path / "a" / "summary.json").write_text('{"knn/top1": 99.0}')
    done = train("hydra.run.dir=a", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "continues" in done.out and "from step 6" in done.out and "12 (6 per epoch" in done.out
    assert "from step 6)" in done.out  # the screen says it too
    assert record(tmp_path / "a").state == "finished"
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["knn/top1"] != 99.0


@pytest.mark.slow
def test_the_run_with_a_checkpoint_is_continued_not_the_newest_folder(tmp_path: Path) -> None:
    assert train("hydra.run.dir=runs/a", kill_at(8), cwd=tmp_path).code == -9
    assert train("hydra.run.dir=runs/b", kill_at(2), cwd=tmp_path).code == -9
    done = train("hydra.run.dir=runs/c", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "runs/a from step 6" in done.out
    assert not (tmp_path / "runs/c").exists()


@pytest.mark.slow
def test_records_that_say_nothing_are_skipped_with_a_line(tmp_path: Path) -> None:
    assert train("hydra.run.dir=runs/a", kill_at(8), cwd=tmp_path).code == -9
    texts = {"empty": "", "foreign": '{"name": "another program"}', "list": "[]", "half": '{"hash": "a'}
    texts["kinds"] = '{"identity": 5, "hash": 3}'
    hostile = json.loads((tmp_path / "runs/a/run.json").read_text())
    hostile["resolved"]["trainer.precision"]["value"] = {"_target_": "os.system", "command": "touch hacked"}
    texts["code"] = json.dumps(hostile)
    for name, text in texts.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(text)
    (tmp_path / "runs" / "file").write_text("no folder")
    done = train("hydra.run.dir=runs/b", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "runs/a from step 6" in done.out and "Traceback" not in done.err
    for name in texts:
        assert f"runs/{name}/run.json cannot be read as a run's record" in done.out
    done = train("hydra.run.dir=runs/foreign", cwd=tmp_path)
    assert done.code == 1 and "foreign holds a run: " in done.err and "overwrite=true moves it aside" in done.err


# Length


@pytest.mark.slow
def test_a_longer_run_goes_on_where_its_schedules_would_have_been_the_same(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a/run", CONSTANT, cwd=tmp_path).code == 0
    done = train("hydra.run.dir=a/run", CONSTANT, "trainer.max_epochs=3", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "from step 12" in done.out, done
    assert train("hydra.run.dir=b/run", CONSTANT, "trainer.max_epochs=3", cwd=tmp_path).code == 0
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    for name in ("a/run", "b/run"):
        rows = csv.DictReader((tmp_path / name / "metrics.csv").open())
        assert [row["step"] for row in rows] == [str(i) for i in range(19)]


@pytest.mark.slow
def test_another_length_under_a_schedule_is_refused_with_its_name_and_step(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", cwd=tmp_path).code == 0
    before = content(tmp_path / "a")
    done = train("hydra.run.dir=a", "trainer.max_epochs=3", "resume=auto", cwd=tmp_path)
    assert done.code == 1 and "optimizer default lr would have been" in done.err and "at step 7" in done.err
    assert "resume_schedule=new" in done.err and content(tmp_path / "a") == before
    done = train("hydra.run.dir=a", "trainer.max_epochs=1", "resume=auto", cwd=tmp_path)
    assert done.code == 1 and "are 6 steps, and" in done.err and "has taken 12 already" in done.err
    path = "resume=a/checkpoints/last.ckpt"
    done = train("hydra.run.dir=b", "trainer.max_epochs=3", path, "resume_schedule=new", cwd=tmp_path)
    assert done.code == 0 and record(tmp_path / "b").pieces[0]["schedule"] == "new"
    assert torch.load(tmp_path / "b/checkpoints/last.ckpt", weights_only=True)["global_step"] == 18
    done = train("hydra.run.dir=d", "trainer.max_epochs=3", "resume=auto", cwd=tmp_path)
    assert done.code == 1 and "a/checkpoints/last.ckpt is of a run with" in done.err  # b is no run of that length
    done = train("hydra.run.dir=c", "resume_schedule=new", cwd=tmp_path)
    assert done.code == 1 and "resume_schedule=new goes with resume=PATH" in done.err and not (tmp_path / "c").exists()


@pytest.mark.slow
def test_a_run_counted_in_steps_shows_them(tmp_path: Path) -> None:
    words = ["trainer.max_epochs=-1", "trainer.max_steps=9", "hydra.run.dir=a"]
    done = train(*words, cwd=tmp_path)
    assert done.code == 0 and "9 (6 per epoch" in done.out and "learning rate     0 ->" in done.out


# resume=PATH


@pytest.mark.slow
def test_a_path_of_another_configuration_is_refused(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", kill_at(8), "trainer.checkpoint_every=2", cwd=tmp_path).code == -9
    done = train("hydra.run.dir=b", "resume=a", "method.temperature=0.2", cwd=tmp_path)
    assert done.code == 1 and "of another configuration (method.temperature: 0.5, now 0.2)" in done.err
    assert not (tmp_path / "b").exists()
    done = train("hydra.run.dir=a", "resume=a/checkpoints/best.ckpt", cwd=tmp_path)
    assert done.code == 1 and "would write over the last.ckpt beside it" in done.err
    assert train("hydra.run.dir=b", "resume=a", cwd=tmp_path).code == 0  # a run goes on in another folder
    assert record(tmp_path / "a").state == "running" and record(tmp_path / "b").state == "finished"
    assert train("hydra.run.dir=a", "resume=a", cwd=tmp_path).code == 0  # or in its own
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "a/run.json").unlink()  # a record that is lost is no reason to lose the run
    done = train("hydra.run.dir=a", "resume=auto", cwd=tmp_path)
    assert done.code == 1 and "holds checkpoints, and no run.json that says whose they are" in done.err
    (tmp_path / "a/run.json").write_text("{")
    done = train("hydra.run.dir=a", "resume=a", cwd=tmp_path)
    assert done.code == 1 and "a/run.json cannot be read as a run's record" in done.err and "Trace" not in done.err


# Data


@pytest.mark.slow
def test_other_data_are_another_run(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        pictures(tmp_path / name, seed)
    done = on_folder("one", "hydra.run.dir=runs/a", cwd=tmp_path)
    assert done.code == 0, done.err
    before = content(tmp_path / "runs/a")
    done = on_folder("two", "hydra.run.dir=runs/a", "resume=auto", cwd=tmp_path)
    assert done.code == 1 and "runs/a holds a run of other data already (finished); overwrite=true" in done.err
    done = on_folder("two", "hydra.run.dir=runs/b", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "no earlier run of this configuration and data" in done.out
    assert content(tmp_path / "runs/a") == before
    (tmp_path / "one").rename(tmp_path / "moved")  # the same data, wherever they lie
    done = on_folder("moved", "hydra.run.dir=runs/c", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "runs/a is finished already" in done.out and not (tmp_path / "runs/c").exists()


@pytest.mark.parametrize("change", [pytest.param("more", marks=pytest.mark.slow), "others"])
@pytest.mark.slow
def test_data_that_changed_are_refused_unless_accepted(tmp_path: Path, change: str) -> None:
    root = pictures(tmp_path / "root", 0)
    words = ["hydra.run.dir=runs/a", "resume=auto", "trainer.checkpoint_every=1"]
    assert on_folder("root", *words, kill_at(3), cwd=tmp_path).code == -9
    shutil.rmtree(root)
    pictures(root, 1, 24 if change == "more" else 16)
    if change == "others":
        (root / "000.png").rename(root / "new.png")
    others = "16 training images as before, but others"
    said = {"more": "16 training images at the start of the run, 24 now", "others": others}
    done = on_folder("root", *words, cwd=tmp_path)
    assert done.code == 1 and said[change] in done.err and "data.changed=accept goes on with it" in done.err
    done = on_folder("root", *words, "data.changed=accept", cwd=tmp_path)
    assert done.code == 0, done
    assert said[change] in record(tmp_path / "runs/a").pieces[-1]["data"]


@pytest.mark.slow
def test_a_bank_never_belongs_to_other_images(tmp_path: Path) -> None:
    pictures(tmp_path / "root", 0)
    own = [word for word in folder_words("root") if not word.startswith("method.projector.hidden")]
    words = ["method=instdisc", "method.negatives=8", "hydra.run.dir=runs/a", "resume=auto"]
    words += ["trainer.checkpoint_every=1"]
    done = run("train", *own, *words, kill_at(3), cwd=tmp_path)
    assert done.code == -9, done.err
    shutil.rmtree(tmp_path / "root")
    pictures(tmp_path / "root", 1)
    (tmp_path / "root" / "000.png").rename(tmp_path / "root" / "new.png")
    done = run("train", *own, *words, "data.changed=accept", cwd=tmp_path)
    assert done.code == 1 and "InstDisc keeps a row for each sample, which would be another image's" in done.err


# Values that were decided once


@pytest.mark.slow
def test_what_auto_became_is_kept(tmp_path: Path) -> None:
    assert train("hydra.run.dir=a", kill_at(8), cwd=tmp_path).code == -9
    own = record(tmp_path / "a")
    assert own.resolved == {
        "trainer.precision": {"typed": "auto", "value": "32-true"},
        "augmentation.where": {"typed": "auto", "value": "device"},
    }
    own.resolved["trainer.precision"]["value"] = "64-true"  # as if another machine had decided
    own.write(tmp_path / "a")
    done = train("hydra.run.dir=a", "resume=auto", cwd=tmp_path)
    assert done.code == 0
    saved = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)
    assert saved["state_dict"]["backbone.net.conv1.weight"].dtype == torch.float64
    assert saved["ssl_zoo"]["resolved"]["trainer.precision"]["value"] == "64-true"
    assert "precision: 64-true" in (tmp_path / "a/config.yaml").read_text()


# Sweeps, working directories, reports


@pytest.mark.slow
def test_a_sweep_continues_the_sweep_of_the_same_jobs(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "resume=auto"]
    done = train(*words, "hydra.sweep.dir=sweeps/a", kill_at(8), cwd=tmp_path)  # in its first job
    assert done.code == -9 and done.out.count("no earlier run of this configuration and data") == 1
    done = train(*words, "hydra.sweep.dir=sweeps/b", cwd=tmp_path)
    assert done.code == 0, done
    first, second = "0_simclr_synthetic_seed0", "1_simclr_synthetic_seed1"
    assert f"sweeps/a/{first} from step 6" in done.out and done.out.count("no earlier run") == 1
    assert not (tmp_path / "sweeps/b" / first).exists()
    for folder in (tmp_path / "sweeps/a" / first, tmp_path / "sweeps/b" / second):
        assert record(folder).state == "finished"
    done = train(*words, "hydra.sweep.dir=sweeps/c", cwd=tmp_path)
    assert done.code == 0 and done.out.count("is finished already") == 2


@pytest.mark.slow
def test_a_path_is_meant_from_where_it_was_typed(tmp_path: Path) -> None:
    pictures(tmp_path / "root", 0)
    done = on_folder("root", "hydra.run.dir=a", "hydra.job.chdir=true", cwd=tmp_path)
    assert done.code == 0, done
    done = on_folder("rot", "hydra.run.dir=b", "hydra.job.chdir=true", cwd=tmp_path)
    assert done.code == 1 and "data.root=rot: there is no such folder" in done.err and "FileNotFound" not in done.err
    words = ["hydra.run.dir=b", "hydra.job.chdir=true", "data.batch_size=32"]  # found when the data are built
    done = on_folder("root", *words, cwd=tmp_path)
    assert done.code == 1 and "Traceback" not in done.err
    assert "the training set has 16 samples, fewer than data.batch_size=32" in done.err
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_report_that_fails_loses_nothing(tmp_path: Path) -> None:
    spoiled = "+callbacks.spoil={_target_: tests.cli.kill.Spoil, path: a/curves.png}"  # where a picture should be
    few = ["report=true", spoiled]
    done = train(*few, "hydra.run.dir=a", cwd=tmp_path)
    assert done.code == 0 and "the run is finished; its report failed (" in done.err and "Traceback" not in done.err
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    assert summary["report"].startswith("failed: ") and "knn/top1" in summary
    assert record(tmp_path / "a").state == "finished"
    done = train(*few, "hydra.run.dir=a", "resume=auto", cwd=tmp_path)
    assert done.code == 0 and "is finished already" in done.out
