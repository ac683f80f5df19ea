"""A kind of sample that nobody here has heard of trains, resumes, is judged and exported from a folder of its own."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError
from ssl_zoo.export import export
from ssl_zoo.worker import build_run
from tests.cli.test_runs import assert_same, run, weights

SMALL = [
    "data=letters", "data.batch_size=8", "method.projector.hidden=[8]", "method.projector.out_features=8",
    "trainer.max_epochs=2", "trainer.log_every=1", "trainer=cpu", "logger=csv",
]  # fmt: skip


EVALUATED = {"finetune": ["protocol.trainer.max_epochs=1", "protocol.batch_size=12"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(Path(__file__).parent / "new_modality", tmp_path, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def words(folder: Path, *argv: str) -> list[str]:
    return [*SMALL, *argv, f"hydra.searchpath=[file://{folder / 'conf'}]"]


def train(folder: Path, *argv: str) -> Any:
    return run("train.py", *words(folder, *argv), cwd=folder, path=folder)


def numbers(node: Any) -> Iterator[float]:
    """All numbers below the results of an evaluation."""
    items = node.values() if isinstance(node, dict) else ()
    yield from (x for x in items if isinstance(x, float))
    for item in items:
        yield from numbers(item)


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def last_row(folder: Path) -> dict[str, str]:
    with (folder / "metrics.csv").open() as file:
        return {key: value for row in csv.DictReader(file) for key, value in row.items() if value}


@pytest.mark.parametrize("method", ["simclr", pytest.param("byol", marks=pytest.mark.slow)])
def test_it_trains_with_probe_and_neighbours(folder: Path, method: str) -> None:
    extra = ["method.predictor.hidden=[8]"] if method == "byol" else []
    done = train(folder, f"method={method}", *extra, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    found = last_row(folder / "run")
    assert float(found["knn/top1"]) > 40 and float(found["probe/top1"]) > 40 and float(found["train/loss"]) > 0
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["report"] == "made" and summary["letter counts"]["linear"] > 60
    assert "vocabulary 12" in done.stdout and "letter counts" in done.stdout


@pytest.mark.slow
def test_killed_it_goes_on_bit_for_bit_with_workers_and_a_damaged_sample(folder: Path) -> None:
    files = ["data.source.in_memory=false", "data.source.damaged=[5]", "data.workers=1"]
    argv = ["method=simclr", *files, "report=false", "trainer.checkpoint_every=3"]
    assert train(folder, *argv, "hydra.run.dir=whole").returncode == 0
    kill = "+callbacks.kill={_target_: tests.cli.kill.Kill, step: 8}"
    assert train(folder, *argv, "hydra.run.dir=cut", kill).returncode != 0
    done = train(folder, *argv, "hydra.run.dir=cut", "resume=auto")
    assert done.returncode == 0 and "from step 6" in done.stdout, done.stderr
    assert_same(weights(folder / "whole"), weights(folder / "cut"))
    assert (folder / "cut/damaged.txt").read_text() == "row 5: it is torn\n"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["device", "worker"])
def test_two_processes_and_workers_make_what_one_does(folder: Path, where: str) -> None:
    exact = ["method=simclr", "report=false", "trainer.precision=64-true", "trainer.max_epochs=1"]
    one = train(folder, *exact, "hydra.run.dir=one")
    own = ["data.source.in_memory=false", "data.workers=1", f"augmentation.where={where}"]
    two = train(folder, *exact, *own, "hydra.run.dir=two", "trainer.devices=2")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    a, b = (checkpoint(folder / name)["state_dict"] for name in ("one", "two"))
    assert a.keys() == b.keys() and a["backbone.net.letters.weight"].dtype == torch.float64
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-9


@pytest.mark.slow
def test_it_is_judged_and_taken_away(folder: Path) -> None:
    assert train(folder, "method=simclr", "report=false", "hydra.run.dir=run").returncode == 0
    trust = "trust=[new_modality]"
    for protocol in ("knn", "linear", "clustering", "retrieval", "finetune"):
        done = run("evaluate.py", f"protocol={protocol}", "checkpoint=run", trust, *EVALUATED.get(protocol, []),
                   cwd=folder, path=folder)  # fmt: skip
        assert done.returncode == 0, f"{protocol}: {done.stderr}"
        (file,) = (folder / "run/evaluation").glob(f"{protocol}*.json")
        assert 0 < next(iter(numbers(json.loads(file.read_text())))) <= 100
    file = export(folder / "run", trust=["new_modality"])
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["verified"]["difference"] == 0 and card["data"]["vocabulary"] == 12
    assert "from new_modality import bag" in card["load"] and card["preprocessing"]["ops"] == []


@pytest.mark.slow
def test_a_name_that_is_nobodys_is_not_built_from_a_file(folder: Path) -> None:
    assert train(folder, "method=simclr", "report=false", "trainer.max_epochs=1", "hydra.run.dir=run").returncode == 0
    with pytest.raises(ConfigError, match=r"names new_modality\.\w+ in .*trust=\[new_modality\]"):
        build.load_method(folder / "run")


def composed(folder: Path, *argv: str) -> Any:
    cfg = config.load(words(folder, *argv))
    config.quick_check(cfg)
    build.check_signatures(cfg)
    return cfg


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("method=moco_v2", "batch_norm.group=8"), "MoCo mixes, shuffles or cuts views, and the views that Letter"),
        (("method=imix",), "IMixNPair mixes, shuffles or cuts views"),
        (("method=simclr", "trainer.compile=graphs"), "trainer.compile=graphs wants batches of one shape"),
        (("method=simclr", "backbone.vocabulary=7"), r"method.backbone.vocabulary=7: the data's is 12; leave it out"),
        (("method=simclr", "data.source.damaged=[0,1,2,3]"), r"4 of 48 samples cannot be read.*row 0: it is torn"),
    ],
)
def test_what_cannot_be_done_with_it_is_a_sentence(folder: Path, argv: tuple[str, ...], message: str) -> None:
    files = ["data.source.in_memory=false"] if "damaged" in argv[-1] else []
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        build_run(composed(folder, *argv, *files))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("augmentation=gray",), r"augmentation.views\[0\].size: it asks for data.image_size, and samples of this"),
        (("backbone=resnet8",), "backbone.in_channels: it asks for data.channels, and samples of this data have none"),
        (("data=synthetic",), r"augmentation is new_modality.LetterViews, which is not for the samples of .*ImageData"),
        (("+augmentation.views.0.tie.a=0", "augmentation.views.0.ops=[{image/flip: {}}]"),
         "image/flip works on samples of another kind; LetterViews takes letters/crop, letters/replace"),
        (("augmentation.views.0.ops=[{letters/crop: {leest: 0.5}}]",), "letters/crop has no option 'leest'"),
        (("data.source.samples=0",), "data.source.samples=0: letters wants a whole number"),
    ],
)  # fmt: skip
def test_what_was_composed_for_other_samples_is_a_sentence(folder: Path, argv: tuple[str, ...], message: str) -> None:
    mixed = ["augmentation=letters"] if argv == ("data=synthetic",) else []
    with pytest.raises(ConfigError, match=message):
        composed(folder, *argv, *mixed)
