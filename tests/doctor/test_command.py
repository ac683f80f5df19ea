"""The command as it is typed: alone, and as one process of several."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo import cli
from ssl_zoo.doctor import host, training
from tests.cli import commands
from tests.cli.commands import Done

ALONE = [
    "processes", "versions", "devices", "cores", "shared memory", "open files", "disk", "loader", "first step",
]  # fmt: skip


def names(out: str) -> list[str]:
    return [line[2:16].strip() for line in out.split("\n\n")[0].splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "BLOCKS", 2)
    monkeypatch.setattr(training, "LOADED", 0.1)


def test_one_process_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "age", lambda: 1.0)
    assert cli.entry(["doctor", "data=synthetic", "data.source.samples=256", f"out={tmp_path}/runs"]) == 0
    out = capsys.readouterr().out
    assert names(out) == ALONE
    assert f"  processes      one, on {socket.gethostname()}\n" in out
    assert "no workers, so none is needed" in out and "samples in memory, views in batches" in out
    assert re.search(r"first step     [\d.]+ m?s after the start \(imports 1 s, building ", out)
    assert out.split("\n\n")[1].startswith("Verdict: ")


def test_too_little_shared_memory_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage

    def small(where: Any) -> Any:
        return usage(where)._replace(free=64_000_000) if where == host.SHARED else usage(where)

    monkeypatch.setattr(shutil, "disk_usage", small)
    monkeypatch.setattr(host, "allowed_cores", lambda: 8)
    assert cli.entry(["doctor", f"out={tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "\nx shared memory  64 MB free; 8 workers x 2 batches of 19.3 MB need 328 MB\n" in out
    assert "\nTo change before a training starts:\n  shared memory: give more (Docker: --shm-size=1g, " in out


def test_data_that_cannot_be_read_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.entry(["doctor", "data=synthetic", "data.source.samples=64", f"out={tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "\nx data           a training cannot use it\n" in out and "first step" in out
    assert "\n  data: data: the training set has 64 samples, fewer than data.batch_size=128: not one step; " in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["patience=soon"], "patience=soon: wanted seconds"),
        (["data=imagnet"], "did you mean 'imagenet'?"),
        (["trainer.max_epoch=1"], "did you mean 'max_epochs'?"),
    ],
)
def test_wrong_words_are_told_as_everywhere(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.entry(["doctor", *words]) == 1
    told = capsys.readouterr()
    assert message in told.err and told.out == ""


def test_a_process_that_does_not_come_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    for name, value in variables(0, port).items():
        monkeypatch.setenv(name, value)
    assert cli.entry(["doctor", "patience=1"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "x processes      not all have come, or stayed"
    assert told[2:4] == ["Verdict: fine: nothing.", "To change before a training starts:"]
    assert told[4].startswith(f"  processes: process 1 of 2 has not come to 127.0.0.1:{port} within 1 s")


def test_processes_without_the_first_say_so_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables(1, free_port()).items():
        monkeypatch.setenv(name, value)
    assert cli.entry(["doctor", "patience=1"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("process 1 of 2: process 0 of 2 has not come to ")


def together(words: Sequence[str], cwd: Path) -> list[Done]:
    port = free_port()
    running = [commands.start("doctor", *words, cwd=cwd, **variables(rank, port)) for rank in range(2)]
    return [one.wait(300) for one in running]


@pytest.mark.slow
def test_two_processes_are_examined_and_one_prints(tmp_path: Path) -> None:
    first, second = together(["data=digits", "out=runs"], tmp_path)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out == ""
    wanted = [*ALONE[:6], "all-reduce", "gather", "disk", "loader", "first step", "weights"]
    assert names(first.out) == wanted
    assert f"2 on 1 host ({socket.gethostname()}), started by the environment\n" in first.out
    assert "gather         its gradients are those of one process (largest difference " in first.out
    assert "weights        equal on all 2 processes after two steps\n" in first.out


@pytest.mark.slow
def test_what_one_process_is_refused_is_told_by_the_first(tmp_path: Path) -> None:
    first, second = together(["data=folder", f"data.root={tmp_path}/no", "out=runs"], tmp_path)
    assert (first.code, second.code) == (1, 1)
    assert "\nx words          a training with them is refused\n" in first.out and "weights " in first.out
    assert f"\n  words: data.root={tmp_path}/no" in first.out and second.out == ""


def variables(rank: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
