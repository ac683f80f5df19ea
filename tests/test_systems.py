"""Windows and macOS, as far as a Linux machine can play them: all is imported and a plain run trains to its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_zoo import config, machine, trainer
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import pick_device
from tests.cli.commands import TINY

ROOT = Path(__file__).parent.parent


def played(system: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.systems", system, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_a_plain_run_on_another_system(system: str, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("trainer=", "report="))]
    run = "hydra.run.dir=run"
    done = played(system, tmp_path, "train", *words, run, "trainer.max_epochs=null", "trainer.max_steps=2",
                  "report=true", "few_labels=null")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(re.match(r"(\d+) modules", done.stdout)[1]) > 250  # type: ignore[index]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["report"] == "made", done.stderr[-3000:]
    told = "the GPU of this Mac is not used" in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stdout).split())
    assert told == (system == "darwin")


def test_an_apple_gpu_is_not_chosen_and_the_screen_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (note,) = trainer.mps_note("auto")
    assert note == (
        "trainer.accelerator=auto: the GPU of this Mac is not used (crops and neighbours are computed in float64, "
        "which MPS does not have); this run trains on the CPU"
    )
    assert trainer.mps_note("cpu") == []
    chosen = trainer.make_trainer([], [], tmp_path, "32-true", max_epochs=1)
    assert chosen.strategy.root_device == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"trainer.accelerator=mps is not supported \(.*\); use trainer=cpu"):
        trainer.check_devices(config.load(["trainer.accelerator=mps"]))
    with pytest.raises(ConfigError, match=r"device=mps cannot be used \(.*float64.*\); wanted auto, cpu, cuda or"):
        pick_device("mps")


def test_without_an_apple_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert trainer.mps_note("auto") == []


def test_the_memory_of_this_machine() -> None:
    said = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    assert machine.memory() == pytest.approx(said * 1024, rel=0.01)


def test_signals_that_a_system_does_not_have_are_left_out() -> None:
    assert [number.name for number in machine.signals("SIGINT", "SIGBREAK")] == ["SIGINT"]
