"""Runs that commit ff847eb wrote: they are read, judged, exported and continued by every later version.

Each folder holds what that commit left when SIGTERM stopped a run of two epochs in its second, and in ``expected.json``
the words of the run and what its own continuation ended with.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import build, runs
from tests.cli.commands import run

FIXTURES = Path(__file__).parent / "fixtures" / "ff847eb"
NAMES = ["simclr", *(pytest.param(name, marks=pytest.mark.slow) for name in ("moco_v2", "dino", "deepcluster_v2"))]


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shutil.copytree(FIXTURES / request.param, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.callspec.params["folder"]


def expected(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / name / "expected.json").read_text())


@pytest.mark.parametrize("folder", NAMES, indirect=True)
@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_end_it_had_then(folder: Path, name: str) -> None:
    wanted = expected(name)
    words = [*wanted["overrides"], "report=false", f"hydra.run.dir={folder}", "resume=auto"]
    done = run("train", *words, cwd=folder.parent)
    assert done.code == 0, done
    assert f"resume=auto: continues {folder} from step" in done.out
    assert "a run of an earlier version, which did not note what its data were: taken for the same" in done.out
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(wanted["step"] + 1))
    assert float(rows[-1]["train/loss"]) == pytest.approx(wanted["train/loss"], rel=2e-3)  # CPUs round differently
    assert float(rows[-1]["knn/top1"]) == pytest.approx(wanted["knn/top1"], abs=3)
    record = runs.read_record(folder)
    assert record is not None and record.state == "finished" and record.data["train"]["samples"] == 1438


@pytest.mark.slow
@pytest.mark.parametrize("folder", NAMES, indirect=True)
def test_it_goes_on_in_another_folder_too(folder: Path, name: str) -> None:
    words = [*expected(name)["overrides"], "report=false", f"hydra.run.dir={folder.parent / 'new'}", f"resume={folder}"]
    done = run("train", *words, "trainer.max_time=00:00:01", cwd=folder.parent)
    assert done.code in (0, 143), done
    assert torch.load(folder.parent / "new/checkpoints/last.ckpt", weights_only=True)["global_step"] > 22


@pytest.mark.parametrize("folder", NAMES, indirect=True)
@pytest.mark.slow
def test_its_checkpoint_is_judged_and_exported(folder: Path, name: str) -> None:
    done = run("evaluate", f"checkpoint={folder}", "protocol=knn", "device=cpu", cwd=folder.parent)
    assert done.code == 0, done
    found = json.loads((folder / "evaluation/knn.json").read_text())
    assert 30 < found["top1"] < 100 and found["step"] > 22
    done = run("export", f"run={folder}", cwd=folder.parent)
    assert done.code == 0, done
    (card,) = (folder / "export").glob("*.json")
    assert json.loads(card.read_text())["verified"]["difference"] < 1e-5
    method, cfg, checkpoint = build.load_method(folder)
    assert not method.training
    assert cfg.data.image_size == 16 and checkpoint["ssl_zoo"]["version"] == "0.1.0"


@pytest.mark.parametrize("folder", ["simclr_finished"], indirect=True)
def test_a_finished_run_is_known_as_finished(folder: Path) -> None:
    words = [*expected("simclr")["overrides"], "report=false", f"hydra.run.dir={folder}"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run("train", *words, "resume=auto", cwd=folder.parent)
    assert done.code == 0 and "is finished already" in done.out, done
    done = run("train", *words, cwd=folder.parent)
    assert done.code == 1 and "holds a run already (finished)" in done.err
    done = run("train", *words, "resume=auto", "method.temperature=0.2", cwd=folder.parent)
    assert done.code == 1 and "of another configuration (method.temperature: 0.5, now 0.2)" in done.err
    assert {path: path.read_bytes() for path in before} == before
    (folder / "checkpoints/last.ckpt").write_bytes((FIXTURES / "simclr/checkpoints/last.ckpt").read_bytes())
    assert runs.read_record(folder).state == "interrupted"  # type: ignore[union-attr]  # its summary is an older one's
