"""Images of any depth and any number of bands, through the command line: decided, told, kept, trained, judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_zoo import runs
from tests.cli.commands import Done, kill_at, run
from tests.cli.test_runs import assert_same, weights
from tests.data.deep import KINDS, images

OWN = ["data=folder", "data.image_size=32", "data.batch_size=8", "data.workers=0", "data.source.cache=false",
       "trainer.max_epochs=2", "trainer=cpu", "trainer.log_every=1", "logger=csv"]  # fmt: skip
RESNET = ["backbone=resnet8", "backbone.width=8"]
VIT = ["backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"]
SMALL = {"simmim": VIT, "ijepa": VIT}
LINES = {
    "reflectance": "pixel values 0 to 4095 are black to white (12 bits: the largest value found is",
    "float -1 to 1": "(percentiles 0.1 and 99.9; 16 files); what lies outside is cut",
    "5 bands": "pixel values 0 to 16383 are black to white (14 bits: the largest value found is",
}  # of unlabelled folders; tests/cli/test_own_folders.py has the other kinds

pytestmark = pytest.mark.slow


def train(kind: str, *words: str, cwd: Path) -> Done:
    done = run("train", *OWN, f"data.channels={KINDS[kind][0]}", "data.root=images", *words, cwd=cwd)
    assert done.code == 0, (done.out, done.err)
    return done


def record(folder: Path) -> runs.Record:
    found = runs.read_record(folder)
    assert found is not None
    return found


def grey_levels(picture: Path) -> tuple[int, float]:
    """How many values the middle of a picture has, and their spread."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    inside = pixels[pixels.shape[0] // 4 : -pixels.shape[0] // 4]
    inside = inside[inside < 250]  # the paper
    return len(np.unique(inside)), float(inside.std())


@pytest.mark.parametrize("kind", LINES)
def test_every_kind_trains_to_its_end_and_says_what_it_decided(kind: str, tmp_path: Path) -> None:
    images(tmp_path / "images", kind)
    train(kind, "method=simclr", *RESNET, "hydra.run.dir=run", cwd=tmp_path)
    found = record(tmp_path / "run")
    assert found.state == "finished" and any(LINES[kind] in line for line in found.decisions), found.decisions
    assert any("instead of colour" in line for line in found.decisions)
    levels, spread = grey_levels(tmp_path / "run/views.png")
    assert levels > 100 and spread > 25  # a picture, not a black square


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("kind", ["12-bit PNG", "13 bands"])
def test_other_methods_train_on_grey_and_on_thirteen_bands(method: str, kind: str, tmp_path: Path) -> None:
    images(tmp_path / "images", kind)
    train(kind, f"method={method}", *SMALL[method], "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path)
    assert record(tmp_path / "run").state == "finished"


def test_decisions_are_kept_by_resume_evaluation_and_export(tmp_path: Path) -> None:
    images(tmp_path / "images", "float with nodata", count=32, classes=2)
    words = ["method=simclr", *RESNET, "augmentation.normalize=measured", "data.val_fraction=0.25",
             "trainer.checkpoint_every=1", "report=false"]  # fmt: skip
    train("float with nodata", *words, "hydra.run.dir=whole/run", cwd=tmp_path)
    whole = record(tmp_path / "whole/run")
    kept = {path: item["value"] for path, item in whole.resolved.items()}
    assert len(kept["data.source.range"]) == 2 and set(kept["augmentation.normalize"]) == {"mean", "std"}
    assert run("train", *OWN, "data.root=images", "data.channels=1", *words, "hydra.run.dir=parts/run", kill_at(3),
               cwd=tmp_path).code == -9  # fmt: skip
    train("float with nodata", *words, "hydra.run.dir=parts/run", "resume=auto", cwd=tmp_path)
    assert_same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    parts = record(tmp_path / "parts/run")
    assert parts.resolved == whole.resolved and parts.decisions == whole.decisions
    judged = run("evaluate", "checkpoint=whole/run", "protocol=knn", cwd=tmp_path)
    assert judged.code == 0, judged.err
    images(tmp_path / "dark", "float -1 to 1", count=16, classes=2)
    other = run("evaluate", "checkpoint=whole/run", "protocol=knn", "data.root=dark", "data.val_fraction=0.5",
                "output=dark.json", cwd=tmp_path)  # fmt: skip
    assert other.code == 0, other.err
    assert run("export", "run=whole/run", cwd=tmp_path).code == 0
    (card,) = (tmp_path / "whole/run/export").glob("*.json")
    preprocessing = json.loads(card.read_text())["preprocessing"]
    assert preprocessing["range"] == kept["data.source.range"]
    assert preprocessing["normalize"] == kept["augmentation.normalize"] and preprocessing["nodata"] is None


def test_a_pack_of_thirteen_bands_trains_and_is_judged(tmp_path: Path) -> None:
    images(tmp_path / "images", "13 bands", count=32, classes=2)
    words = ["data=folder", "data.root=images", "data.channels=13", "out=x.pack", "workers=0"]
    made = run("pack", *words, cwd=tmp_path)
    assert made.code == 0 and "pixel values 0 to 16383" in made.out, (made.out, made.err)
    words = ["method=simclr", "data=packed", "data.root=x.pack", "data.channels=13", "data.val_fraction=0.25"]
    done = run("train", *words, *OWN[1:4], *OWN[5:], *RESNET, "hydra.run.dir=run", cwd=tmp_path)
    assert done.code == 0 and record(tmp_path / "run").resolved["data.source.range"]["value"] == [0, 16383], done.err
    numbers = json.loads((tmp_path / "run/summary.json").read_text())
    assert numbers["report"] == "made" and "knn/top1" in numbers
    judged = run("evaluate", "checkpoint=run", "protocol=linear", cwd=tmp_path)
    assert judged.code == 0, judged.err


def test_bands_that_do_not_fit_are_refused_with_the_setting_that_does(tmp_path: Path) -> None:
    images(tmp_path / "images", "13 bands")
    done = run("train", *OWN, "data.root=images", "method=simclr", "hydra.run.dir=run", cwd=tmp_path)
    assert done.code == 1 and "the files have 13 bands" in done.err and "set data.channels=13" in done.err
    assert not (tmp_path / "run").exists()


def test_a_preview_says_which_bands_it_shows(tmp_path: Path) -> None:
    images(tmp_path / "images", "5 bands")
    done = run("preview", "data=folder", "data.root=images", "data.channels=5", "data.image_size=32", cwd=tmp_path)
    assert done.code == 0 and "views for 5 bands instead of colour" in done.out, done.err
    assert grey_levels(tmp_path / "preview.png")[0] > 100
