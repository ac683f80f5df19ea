"""``trainer=fsdp`` as a user types it: observers, evaluation and report, and going on under ``trainer=ddp``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.commands import TINY, kill_at, run, train

TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]
WORDS = ["data.workers=0", "report=true", "few_labels=null", "hydra.run.dir=RUN", "trainer.precision=64-true"]


def last(folder: Path) -> dict[str, Any]:
    found = torch.load(folder / "RUN" / "checkpoints" / "last.ckpt", weights_only=True)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_run_is_ddps_with_its_observers_and_goes_on_under_ddp(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("ddp", "fsdp", "both")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("ddp", "fsdp"):
        done = train(*WORDS, f"trainer={name}", *TWO, cwd=folders[name])
        assert done.code == 0, done.err
    stopped = [*WORDS, "trainer=fsdp", *TWO, kill_at(7, "SIGTERM")]
    first = run("train", *TINY, *stopped, cwd=folders["both"], PYTHONPATH=str(Path(__file__).parents[2]))
    assert first.code == 143, first.err
    rest = train(*WORDS, "trainer=ddp", *TWO, "resume=auto", cwd=folders["both"])
    assert rest.code == 0, rest.err
    wanted = last(folders["ddp"])
    for name in ("fsdp", "both"):
        found = last(folders[name])
        assert found["callbacks"].keys() == wanted["callbacks"].keys()
        for key, value in wanted["state_dict"].items():
            torch.testing.assert_close(found["state_dict"][key], value, rtol=1e-9, atol=1e-9)
        numbers = json.loads((folders[name] / "RUN" / "summary.json").read_text())
        assert numbers["knn/top1"] == json.loads((folders["ddp"] / "RUN" / "summary.json").read_text())["knn/top1"]
    judged = run("evaluate", "checkpoint=RUN", "protocol=knn", cwd=folders["fsdp"])
    assert judged.code == 0, judged.err


@pytest.mark.slow
def test_of_one_process_the_report_is_made_from_whole_weights(tmp_path: Path) -> None:
    words = ["trainer=fsdp", "trainer.devices=1", "trainer.accelerator=cpu", "trainer.activation_checkpointing=true"]
    done = train(*WORDS, *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "RUN" / "summary.json").read_text())["report"] != "failed"
