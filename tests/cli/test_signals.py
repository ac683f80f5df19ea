"""Signals, time limits and full disks: what was trained is saved, and the words say where."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from ssl_zoo import runs
from ssl_zoo.durations import seconds
from tests.cli.commands import TINY, kill_at, start, train
from tests.cli.test_lock import children
from tests.cli.test_run_folders import record
from tests.cli.test_runs import assert_same, weights
from tests.patience import until


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGTERM", 143),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("SIGINT", 130), ("SIGUSR1", 143))),
    ],
)
def test_a_signal_saves_and_says_where(tmp_path: Path, name: str, code: int) -> None:
    done = train("hydra.run.dir=a", kill_at(4, name), cwd=tmp_path)
    last = tmp_path / "a/checkpoints/last.ckpt"
    assert done.code == code and f"stopped by {name} after step 4; saved {last}; continue with resume=auto" in done.err
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert (record(tmp_path / "a").state, record(tmp_path / "a").reason) == ("interrupted", f"{name} after step 4")


@pytest.mark.parametrize("step", [pytest.param(6, marks=pytest.mark.slow), 12])
@pytest.mark.slow
def test_what_an_epoch_owed_when_it_was_killed_is_made_up_for(tmp_path: Path, step: int) -> None:
    first = f"callbacks.a_kill={{_target_: tests.cli.kill.KillInEvaluation, step: {step}}}"
    done = train("hydra.run.dir=a/run", f"+{first}", "trainer.keep_every=1", cwd=tmp_path)
    assert done.code == -9, done
    assert torch.load(tmp_path / "a/run/checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    done = train("hydra.run.dir=a/run", "resume=auto", "trainer.keep_every=1", cwd=tmp_path)
    assert done.code == 0, done
    assert train("hydra.run.dir=b/run", "trainer.keep_every=1", cwd=tmp_path).code == 0
    kept = [sorted(path.name for path in (tmp_path / name / "run/checkpoints").glob("*.ckpt")) for name in "ab"]
    assert kept[0] == kept[1]
    for name in "ab":
        for path in (tmp_path / name).rglob("*.ckpt"):
            if path.name != "last.ckpt":
                path.unlink()
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    rows = [list(csv.DictReader((tmp_path / name / "run/metrics.csv").open())) for name in "ab"]
    for column in ("step", "epoch", "train/loss", "probe/top1", "knn/top1"):
        assert [row[column] for row in rows[0]] == [row[column] for row in rows[1]], column


@pytest.mark.slow
def test_after_what_was_owed_every_epoch_is_saved_again(tmp_path: Path) -> None:
    first = "+callbacks.a_kill={_target_: tests.cli.kill.KillInEvaluation, step: 6}"
    assert train("hydra.run.dir=a", first, "trainer.max_epochs=4", cwd=tmp_path).code == -9
    done = train("hydra.run.dir=a", "resume=auto", "trainer.max_epochs=4", kill_at(14), cwd=tmp_path)
    assert done.code == -9, done
    saved = torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 12 and not saved["callbacks"]["RunCheckpoint"]["owed"]


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    slow = "+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 300}"
    running = start("train", *TINY, "hydra.run.dir=a", slow, cwd=tmp_path)
    until((tmp_path / "a/metrics.csv").exists)
    time.sleep(1)  # now it waits in its first step
    running.send(signal.SIGINT)
    time.sleep(1)  # or the system makes one signal of both
    running.send(signal.SIGINT)
    done = running.wait(100)
    assert done.code == 130 and "Traceback" not in done.err, done
    assert "stopped by SIGINT at once; nothing had been saved" in done.err
    assert (record(tmp_path / "a").state, record(tmp_path / "a").reason) == ("interrupted", "SIGINT, at once")


@pytest.mark.slow
def test_an_interrupt_of_several_processes_saves_too(tmp_path: Path) -> None:
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=50"]
    running = start("train", *TINY, *two, "hydra.run.dir=a", cwd=tmp_path)
    until(lambda: (tmp_path / "a/checkpoints/last.ckpt").exists())
    running.send(signal.SIGINT)
    done = running.wait(60)
    assert done.code == 130 and done.err.count("stopped by SIGINT after step") == 1, done
    assert record(tmp_path / "a").state == "interrupted"


@pytest.mark.slow
def test_killing_the_launcher_ends_its_processes(tmp_path: Path) -> None:
    two = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=1000"]
    running = start("train", *TINY, *two, "hydra.run.dir=a", "trainer.checkpoint_every=1", cwd=tmp_path)
    until(lambda: (tmp_path / "a/checkpoints/last.ckpt").exists())
    ranks = children(running.pid)
    assert len(ranks) == 2
    running.send(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{rank}/cmdline").exists() for rank in ranks), 20)
    words = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_time=00:00:01"]
    done = train("hydra.run.dir=a", *words, "trainer.max_epochs=1000", "resume=auto", cwd=tmp_path)
    assert done.code == 143 and "stopped by trainer.max_time after step" in done.err, done


@pytest.mark.slow
def test_max_time_stops_and_the_pieces_are_one_run(tmp_path: Path) -> None:
    wait = "+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 0.3}"
    words = ["hydra.run.dir=a/run", "resume=auto", wait, "trainer.max_time=0-00:00:01"]
    codes = [train(*words, cwd=tmp_path).code for _ in range(3)]
    assert codes[0] == codes[1] == 143 and set(codes) <= {0, 143}
    while codes[-1]:
        codes.append(train(*words, cwd=tmp_path).code)
        assert len(codes) < 10
    assert train("hydra.run.dir=b", cwd=tmp_path).code == 0
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert [piece["step"] for piece in record(tmp_path / "a/run").pieces] == sorted(
        {piece["step"] for piece in record(tmp_path / "a/run").pieces}
    )


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("00:30:00", 1800), ("1:00:00", 3600), ("02:03:04:05", 2 * 86400 + 3 * 3600 + 245), ("1-00:00:01", 86401),
     ("30", None), ("1:00", None), ("soon", None), ("1:0:0", None)],
)  # fmt: skip
def test_times_as_people_and_schedulers_write_them(words: str, wanted: float | None) -> None:
    assert seconds(words) == wanted


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    done = train("hydra.run.dir=a", "trainer.max_time=soon", cwd=tmp_path)
    assert done.code == 1 and "trainer.max_time=soon: wanted a time above 0 as HH:MM:SS, DD:HH:MM:SS or" in done.err


@pytest.mark.slow
def test_checkpoints_by_time_and_those_to_keep(tmp_path: Path) -> None:
    wait = "+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 0.2}"
    minutes = ["trainer.checkpoint_minutes=0.008"]  # half a second
    assert train("hydra.run.dir=a", *minutes, wait, kill_at(5), cwd=tmp_path).code == -9
    assert torch.load(tmp_path / "a/checkpoints/last.ckpt", weights_only=True)["global_step"] in (3, 4)
    assert train("hydra.run.dir=b", "trainer.keep_every=2", "trainer.max_epochs=5", cwd=tmp_path).code == 0
    kept = sorted((tmp_path / "b/checkpoints").glob("epoch-*.ckpt"))
    assert [file.name for file in kept] == ["epoch-0002.ckpt", "epoch-0004.ckpt"]
    assert [torch.load(file, weights_only=True)["global_step"] for file in kept] == [12, 24]


@pytest.mark.slow
def test_a_disk_that_fills_while_training(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 1_400_000
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        words = ["hydra.run.dir=disk/a", "trainer.checkpoint_every=1", "trainer.max_epochs=4"]
        first = train(*words, kill_at(3), cwd=tmp_path)
        assert first.code == -9, first
        free = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(b"x" * (free - 20_000))
        done = train(*words, "resume=auto", cwd=tmp_path)
        assert done.code == 1 and "Traceback" not in done.err, done
        assert "the disk of" in done.err and "is full; an earlier last.ckpt is still whole" in done.err
        assert torch.load(disk / "a/checkpoints/last.ckpt", weights_only=True)["global_step"] in (2, 3)
        assert not list((disk / "a/checkpoints").glob("*.part"))
        (disk / "ballast").unlink()
        done = train(*words, "resume=auto", cwd=tmp_path)
        assert done.code == 0 and runs.read_record(disk / "a").state == "finished", done  # type: ignore[union-attr]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
