"""Few images through the command line: trained to the end, judged by what they can bear, without a full batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.cli.commands import Done, run
from tests.data.helpers import pictures

pytestmark = pytest.mark.slow

SMALL = [
    "data=folder", "data.image_size=32", "data.source.cache=false", "data.workers=0", "trainer=cpu", "logger=csv",
    "trainer.max_epochs=1", "few_labels=null", "hydra.run.dir=run",
]  # fmt: skip
RESNET = ["backbone=resnet8", "backbone.width=4"]


def classes(root: Path, count: int, each: int) -> Path:
    for c in range(count):
        pictures(root / f"class{c:02d}", each, size=(40, 60), seed=c)
    return root


def text(done: Done) -> str:
    return " ".join(done.out.replace("│", " ").split())


@pytest.mark.parametrize("method", ["simclr", "moco_v2"])
def test_twenty_folders_of_three_images(method: str, tmp_path: Path) -> None:
    root = f"data.root={classes(tmp_path / 'images', 20, 3)}"
    words = ["train", f"method={method}", root, *SMALL, *RESNET]
    refused = run(*words, cwd=tmp_path)
    assert refused.code == 1 and "try data.batch_size=32" in refused.err, refused.err
    done = run(*words, "data.batch_size=32", cwd=tmp_path)
    assert done.code == 0, done.err
    numbers = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert numbers["report"] == "made" and "judged on 60 training samples" in text(done)
    network = next(value for value in numbers.values() if isinstance(value, dict))
    assert (network["images"], network["folds"], network["k"]) == (60, 3, 2)
    held = run(*words, "data.batch_size=32", "data.val_fraction=0.1", "hydra.run.dir=held", cwd=tmp_path)
    assert held.code == 0 and "penalty chosen in 3 folds of the training samples" in text(held), held.err
    assert json.loads((tmp_path / "held" / "summary.json").read_text())["report"] == "made"
    again = run(*words, "data.batch_size=32", "resume=auto", cwd=tmp_path)
    assert again.code == 0 and "is finished already" in again.out


def test_fewer_images_than_a_batch_are_drawn_and_judged(tmp_path: Path) -> None:
    many, few = classes(tmp_path / "many", 3, 12), classes(tmp_path / "few", 3, 4)
    drawn = run("preview", "data=folder", f"data.root={few}", "data.image_size=32", "data.batch_size=512", cwd=tmp_path)
    assert drawn.code == 0 and (tmp_path / "preview.png").stat().st_size > 10_000, drawn.err
    assert run("train", f"data.root={many}", *SMALL, *RESNET, "data.batch_size=32", cwd=tmp_path).code == 0
    for protocol in ("knn", "linear"):
        judged = run("evaluate", "checkpoint=run", f"protocol={protocol}", f"data.root={few}", "data.val_fraction=0.25",
                     "output=out.json", cwd=tmp_path)  # fmt: skip
        assert judged.code == 0, judged.err
        found = json.loads((tmp_path / "out.json").read_text())
        assert found["samples"] == {"train": 9, "test": 3} and 0 <= found["top1"] <= 100
    assert "folds of the training samples" in found["l2_chosen"] and found["l2_chosen"] in text(judged)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_protocol_on_sixty_images(channels: int, tmp_path: Path) -> None:
    words = [f"data.root={classes(tmp_path / 'images', 6, 10)}", "data.val_fraction=0.2", f"data.channels={channels}"]
    done = run("train", *words, *SMALL, *RESNET, "data.batch_size=16", cwd=tmp_path)
    assert done.code == 0, done.err
    for protocol in ("knn", "linear", "clustering", "retrieval"):
        judged = run("evaluate", "checkpoint=run", f"protocol={protocol}", cwd=tmp_path)
        assert judged.code == 0, judged.err
    judged = run("evaluate", "checkpoint=run", "protocol=assignment", cwd=tmp_path)
    assert judged.code == 1 and "protocol=clustering finds clusters in the features of any method" in judged.err
    tune = ["evaluate", "checkpoint=run", "protocol=finetune", "protocol.trainer.max_epochs=1"]
    judged = run(*tune, cwd=tmp_path)
    assert judged.code == 1 and "the training set has 48 labelled samples" in judged.err
    (advice,) = [word for word in judged.err.split() if word.startswith("protocol.batch_size=") and "64" not in word]
    judged = run(*tune, advice.strip(",;"), cwd=tmp_path)
    assert judged.code == 0 and "top1" in judged.out, judged.err


@pytest.mark.parametrize("network", ["resnet", "vit"])
def test_a_rectangle_from_the_preview_to_the_export(network: str, tmp_path: Path) -> None:
    vit = ["backbone=vit_mini", "backbone.embed_dim=16", "backbone.depth=1", "backbone.num_heads=2"]
    words = [f"data.root={classes(tmp_path / 'images', 3, 8)}", "data.val_fraction=0.25", "data.batch_size=8",
             *SMALL, *(RESNET if network == "resnet" else vit), "data.image_size=[32,64]"]  # fmt: skip
    for command in (["preview", *words[:-1], "data.image_size=[32,64]"], ["train", *words],
                    ["evaluate", "checkpoint=run", "protocol=knn"], ["export", "run=run"]):  # fmt: skip
        done = run(*(word for word in command if command[0] != "preview" or "hydra" not in word), cwd=tmp_path)
        assert done.code == 0, (command[0], done.err)
    (card,) = (tmp_path / "run" / "export").glob("*.json")
    said = json.loads(card.read_text())
    assert said["preprocessing"]["image_size"] == [32, 64] and said["verified"]["difference"] < 1e-5


def test_weights_of_a_run_are_those_that_are_judged(tmp_path: Path) -> None:
    root = f"data.root={classes(tmp_path / 'images', 2, 8)}"
    words = [root, *SMALL, *RESNET, "data.batch_size=8", "report=false"]
    assert run("train", "method=dino", *words, cwd=tmp_path).code == 0
    done = run("train", *words, "backbone.weights=run", "trainer.max_steps=1", "hydra.run.dir=next", cwd=tmp_path)
    assert done.code == 0 and "of the encoder of DINO's run" in text(done), done.err
    assert "of the encoder of DINO's run" in json.loads((tmp_path / "next" / "run.json").read_text())["decisions"][-1]
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert any(name.startswith("teacher.") for name in state)
