"""Folders as people have them, through the command line: what is printed, what is recorded, what goes on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ssl_zoo import runs
from tests.cli.commands import TINY, Done, kill_at, run
from tests.cli.test_run_folders import pictures
from tests.cli.test_runs import assert_same, weights

OWN = ["data=folder", "data.image_size=16", "data.batch_size=8", "data.workers=0", "data.source.cache=false", *TINY[5:]]

pytestmark = pytest.mark.slow


def train(*words: str, cwd: Path) -> Done:
    done = run("train", *OWN, *words, cwd=cwd)
    assert done.code == 0, (done.out, done.err)
    return done


def decisions(folder: Path) -> list[str]:
    record = runs.read_record(folder)
    assert record is not None
    return record.decisions


def joined(text: str) -> str:
    """What the screen says, without its frame and its line breaks."""
    return " ".join("".join(line.strip(" │╭╮╰╯─") + " " for line in text.splitlines()).split())


def mixed_tree(root: Path) -> Path:
    from PIL import Image

    for i, (part, name) in enumerate((p, n) for p in ("Training", "Validation") for n in ("cat", "dog")):
        pictures(root / part / name, seed=i, count=6)
        for j, ending in enumerate(("jfif", "jp2", "tga", "pnm")):
            Image.open(root / part / name / f"{j:03}.png").save(root / part / name / f"x{j}.{ending}")
        (root / part / name / "a.xyz").write_text("x")
    (root / "Training" / "@eaDir").mkdir()
    (root / "Testing").mkdir()
    return root


def test_a_tree_of_mixed_files_with_other_names_for_its_parts(tmp_path: Path) -> None:
    mixed_tree(tmp_path / "tree")
    done = train("data.root=tree", "hydra.run.dir=run", cwd=tmp_path)
    wanted = [
        "training set: Training/ (20 images in 2 classes); validation set: Validation/ (20 images); not read: Testing/",
        "skipped: 4 .xyz",
    ]
    assert decisions(tmp_path / "run")[:2] == wanted
    assert all(line in joined(done.out) for line in wanted), done.out
    assert "knn/top1" in json.loads((tmp_path / "run/summary.json").read_text())


def test_a_table_trains_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    pictures(tmp_path / "images", seed=0, count=24)
    rows = [f"images/{i:03}.png,{'odd' if i % 2 else 'even'},{'val' if i >= 16 else 'train'}" for i in range(24)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    words = ["data.root=list.csv", "trainer.checkpoint_every=1"]
    train(*words, "hydra.run.dir=whole/run", cwd=tmp_path)
    assert decisions(tmp_path / "whole/run")[0] == (
        "training set: 16 rows of list.csv in 2 classes; validation set: 8 rows (val)"
    )
    assert run("train", *OWN, *words, "hydra.run.dir=parts/run", kill_at(3), cwd=tmp_path).code == -9
    done = train(*words, "hydra.run.dir=parts/run", "resume=auto", cwd=tmp_path)
    assert "from step 2" in done.out or "from step 3" in done.out
    assert_same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    lines = (tmp_path / "list.csv").read_text().replace("images/000.png,even", "images/000.png,odd")
    (tmp_path / "list.csv").write_text(lines)  # the same images with another label are other data
    done = run("train", *OWN, *words, "hydra.run.dir=parts/run", "resume=auto", "trainer.max_epochs=3", cwd=tmp_path)
    assert done.code == 1 and "the data has changed since this run began" in done.err


def test_several_roots_with_shares_go_on_after_a_kill(tmp_path: Path) -> None:
    for place, n in (("a", 4), ("b b", 20)):
        pictures(tmp_path / place / "cat", seed=1, count=n)
        pictures(tmp_path / place / "dog", seed=2, count=n)
    words = ["data.root=[a,b b]", "data.source.shares=[0.5,0.5]", "trainer.checkpoint_every=1"]
    train(*words, "hydra.run.dir=whole/run", cwd=tmp_path)
    assert decisions(tmp_path / "whole/run")[-1] == (
        "an epoch draws 50% from a (each image 3 times), 50% from b b (each image 0.6 times)"
    )
    assert run("train", *OWN, *words, "hydra.run.dir=parts/run", kill_at(4), cwd=tmp_path).code == -9
    train(*words, "hydra.run.dir=parts/run", "resume=auto", cwd=tmp_path)
    assert_same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (["train/cat", "train/dog", "test/cat", "test/dog"],
         "training set: train/ (16 images in 2 classes); validation set: test/ (16 images; there is no other "
         "validation set)"),
        (["TRAIN/cat", "TRAIN/dog"], "training set: TRAIN/ (16 images in 2 classes); no validation set"),
        (["cat", "dog", "."],
         "no labels: 000.png and 7 more lie beside the class folders cat/, dog/; move them into one"),
    ],
)  # fmt: skip
def test_other_layouts(tmp_path: Path, parts: list[str], line: str) -> None:
    for i, part in enumerate(parts):
        for path in sorted(pictures(tmp_path / "made" / str(i), seed=i, count=8).iterdir()):
            (tmp_path / "tree" / part).mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "tree" / part / path.name)
    done = train("data.root=tree", "hydra.run.dir=run", cwd=tmp_path)
    assert line in decisions(tmp_path / "run") and line in joined(done.out)


def test_a_refusal_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    pictures(tmp_path / "tree/test/cat", seed=0)
    done = run("train", *OWN, "data.root=tree", "hydra.run.dir=run", cwd=tmp_path)
    assert done.code == 1 and "Traceback" not in done.err and not (tmp_path / "run").exists()
    assert done.err.strip().endswith(f"train on one of these: data.root={tmp_path}/tree/test")


def test_damaged_files_are_told_together_with_their_list(tmp_path: Path) -> None:
    for path in sorted(pictures(tmp_path / "tree", seed=0).iterdir())[:4]:
        path.write_text("broken")
    done = train("data.root=tree", "hydra.run.dir=run", cwd=tmp_path)
    assert done.err.count("damaged files: ") == 1
    assert "damaged files: 4 of 16, the next readable samples take their places: " in done.err
    assert "and 1 more (all in " in done.err
    assert len((tmp_path / "run/damaged.txt").read_text().splitlines()) == 4
    again = train("data.root=tree", "hydra.run.dir=run", "seed=1", "overwrite=true", cwd=tmp_path)
    (aside,) = (tmp_path / "run").glob("old-*")
    assert (aside / "damaged.txt").is_file() and "damaged files: 4 of 16" in again.err


@pytest.mark.parametrize("name", ["a(b)=c,it's", "a b", "x=1"])
def test_what_is_advised_for_a_name_works_when_it_is_pasted(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / name / "cat", seed=0, count=8)
    pictures(tmp_path / name / "dog", seed=1, count=8)
    word = f"data.root={name}"
    first = run("train", *OWN, word, "hydra.run.dir=run", cwd=tmp_path)
    if first.code:
        (line,) = [line for line in first.err.splitlines() if "cannot read " in line]
        advice = line.rpartition("for the value as it stands write ")[2]
        word = subprocess.run(["bash", "-c", f"printf %s {advice}"], capture_output=True, text=True, check=True).stdout
        train(word, "hydra.run.dir=run", cwd=tmp_path)
    assert runs.read_record(tmp_path / "run").data["root"] == str(tmp_path / name)


def test_a_run_is_judged_and_drawn_from_another_folder(tmp_path: Path) -> None:
    for i, name in enumerate(("cat", "dog")):
        pictures(tmp_path / "there" / "tree" / "train" / name, seed=i, count=8)
        pictures(tmp_path / "there" / "tree" / "val" / name, seed=9 + i, count=4)
    train("data.root=tree", "hydra.run.dir=run", cwd=tmp_path / "there")
    (tmp_path / "here").mkdir()
    done = run("evaluate", "checkpoint=../there/run", "protocol=knn", cwd=tmp_path / "here")
    assert done.code == 0, done.err
    (tmp_path / "there" / "tree").rename(tmp_path / "there" / "moved")
    done = run("evaluate", "checkpoint=../there/run", "protocol=knn", cwd=tmp_path / "here")
    assert done.code == 1 and "data.root=tree: there is no such folder (looked at " in done.err
    (tmp_path / "there" / "moved").rename(tmp_path / "here" / "tree")  # taken along to another machine
    done = run("evaluate", "checkpoint=../there/run", "protocol=knn", cwd=tmp_path / "here")
    assert done.code == 0, done.err
