"""Windows and macOS, as far as a Linux machine can play them: all is imported and a plain run trains to its end."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_zoo import config, machine, trainer
from ssl_zoo.data.decoders import EvalTask, TrainTask
from ssl_zoo.data.image.second_look import SecondLook
from ssl_zoo.data.sampler import Request
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.run import pick_device
from tests.cli.commands import TINY
from tests.data.helpers import files, pictures

ROOT = Path(__file__).parent.parent


def played(system: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.systems", system, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


# What Windows or macOS lack, by the module that has it, and where the project asks whether it is there first.
POSIX = {
    "os": {"sysconf", "register_at_fork", "fork", "sched_getaffinity", "sched_setaffinity", "O_DIRECTORY", "setsid",
           "killpg", "getpgid", "getuid", "uname", "statvfs", "nice", "getloadavg", "open", "kill", "mkfifo", "pipe2"},
    "signal": {"SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "setitimer", "alarm"},
    "ctypes": {"CDLL"},
    "socket": {"AF_UNIX"},
}  # fmt: skip
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "readline"}
ASKED_FOR = {
    "machine.py": {"sysconf", "open", "CDLL", "SIGKILL"},  # the one place that knows systems
    "datamodule.py": {"sched_getaffinity"},
    "pack.py": {"sched_getaffinity"},
    "pack_writer.py": {"fcntl"},
    "launch.py": {"sched_getaffinity", "sched_setaffinity"},
    "lock.py": {"register_at_fork"},
    "command.py": {"getloadavg"},  # of the doctor, and the following two
    "host.py": {"resource", "sched_getaffinity"},
    "training.py": {"sysconf"},
}


def test_what_other_systems_lack_is_used_where_it_is_asked_for_alone() -> None:
    found: dict[str, set[str]] = {}
    for path in (ROOT / "ssl_zoo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(path.name, set()).update(_of_posix(node))
    assert {name: names for name, names in found.items() if names} == ASKED_FOR


def _of_posix(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & MODULES
    if isinstance(node, ast.ImportFrom):
        return {node.module or ""} & MODULES
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return {node.attr} & POSIX.get(node.value.id, set())
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_a_plain_run_on_another_system(system: str, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("trainer=", "report="))]
    words += ["hydra.run.dir=run", "trainer.max_steps=2", "report=true", "few_labels=null"]
    done = played(system, tmp_path, "train", *words)
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
    chosen = trainer.make_trainer([], [], tmp_path, None, precision="32-true", max_epochs=1)
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


def test_what_data_workers_do_can_be_sent_to_a_process_that_is_not_forked(tmp_path: Path) -> None:
    pictures(tmp_path, 8)
    data = files(tmp_path, where="worker")
    view = SecondLook(data.eval_view)
    tasks = [
        (TrainTask(data.train, data._worker_views, 0, finish), Request(0, 0, 0, [1, 3])) for finish in (True, False)
    ] + [(EvalTask(data.train, view), [0, 4])]
    for task, request in tasks:
        sent, own = pickle.loads(pickle.dumps(task))[request], task[request]
        assert torch.equal(sent["index"], own["index"])
        views = [own["views"], sent["views"]] if isinstance(own["views"], list) else [[own["views"]], [sent["views"]]]
        assert all(torch.equal(a, b) for a, b in zip(*views, strict=True))
