"""One living process writes a run folder; a dead one's is taken up at once."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import filelock
import pytest

from ssl_zoo import lock
from tests.cli.commands import TINY, Running, start, train
from tests.cli.test_run_folders import content, pictures
from tests.patience import until

SLOW = ["+callbacks.wait={_target_: tests.cli.kill.Wait, seconds: 0.3}", "trainer.checkpoint_every=1"]


def children(pid: int) -> list[int]:
    """Processes that a process has started, in whichever of its threads."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for part in lists for child in part]


def begin(*words: str, cwd: Path, folder: str = "a") -> Running:
    """A training that has saved."""
    found = start("train", *TINY, *SLOW, f"hydra.run.dir={folder}", "resume=auto", *words, cwd=cwd)
    until(lambda: (cwd / folder / "checkpoints/last.ckpt").exists())
    return found


@pytest.mark.parametrize("stopped", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.slow
def test_a_run_that_lives_is_left_alone(tmp_path: Path, stopped: bool) -> None:
    first = begin(cwd=tmp_path)
    if stopped:
        first.send(signal.SIGSTOP)
        time.sleep(0.2)
    try:
        for words in (["hydra.run.dir=a"], ["hydra.run.dir=b"]):
            done = train(*words, "resume=auto", cwd=tmp_path)
            assert done.code == 1 and "Traceback" not in done.err, done
            assert f"/a is being written by process {first.pid} on {os.uname().nodename}" in done.err
            assert ("which is stopped (kill -CONT goes on)" in done.err) == stopped
        done = train("hydra.run.dir=a", "overwrite=true", cwd=tmp_path)
        assert done.code == 1 and "is being written by process" in done.err
        assert not (tmp_path / "b").exists()
    finally:
        first.send(signal.SIGCONT)
    assert first.wait().code == 0


def test_what_a_killed_run_leaves_is_taken_up_while_its_data_workers_live(tmp_path: Path) -> None:
    pictures(tmp_path / "root", 0)
    own = ["data=folder", "data.root=root", "data.image_size=16", "data.batch_size=8", "data.workers=2", *TINY[5:]]
    words = ["train", *own, *SLOW, "hydra.run.dir=a", "resume=auto", "trainer.max_epochs=20"]
    first = start(*words, cwd=tmp_path)
    until(lambda: (tmp_path / "a/checkpoints/last.ckpt").exists())
    workers = children(first.pid)
    assert len(workers) >= 2
    first.send(signal.SIGKILL)
    assert first.wait().code == -9
    assert all(Path(f"/proc/{worker}").exists() for worker in workers)  # decoders look for their parent now and then
    done = start(*words[:-1], "trainer.max_epochs=20", "trainer.max_time=00:00:01", cwd=tmp_path).wait()
    assert done.code == 143 and "resume=auto: continues" in done.out, done


@pytest.mark.slow
def test_two_starts_of_one_moment_leave_one_run(tmp_path: Path) -> None:
    both = [start("train", *TINY, "hydra.run.dir=a", "resume=auto", cwd=tmp_path) for _ in range(2)]
    ended = sorted(running.wait().code for running in both)
    assert ended == [0, 1] and json.loads((tmp_path / "a/run.json").read_text())["state"] == "finished"
    (lost,) = [running for running in both if running.process.exitcode == 1]
    assert "in this moment; start again" in lost.text("err") or "is being written by" in lost.text("err")


# The rules that need another host, or a file system without locks


def owner(folder: Path, **more: object) -> None:
    said = {"host": "elsewhere", "pid": 1, "started": "0", "job": None, "heartbeat": time.time(), **more}
    (folder / lock.OWNER).write_text(json.dumps(said))


def test_the_sign_of_life_decides_against_other_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner(tmp_path, heartbeat=time.time() - 290)
    with pytest.raises(lock.Busy, match="is being written by process 1 on elsewhere; wait for it or end it"):
        lock.Lock(tmp_path).acquire()
    owner(tmp_path, heartbeat=time.time() - 301)
    held = lock.Lock(tmp_path)
    held.acquire()
    assert "its process 1 on elsewhere has given no sign of life for 301 s: taken over" in capsys.readouterr().out
    said = lock.read_owner(tmp_path)
    assert said is not None and said["pid"] == os.getpid() and said["host"] == os.uname().nodename
    held.release()
    assert not (tmp_path / lock.OWNER).exists()


def test_a_job_that_the_scheduler_started_again_takes_over_at_once(tmp_path: Path, monkeypatch) -> None:
    owner(tmp_path, job="slurm 7")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    with pytest.raises(lock.Busy, match=r"process 1 on elsewhere \(slurm 7\)"):
        lock.check_free(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    lock.check_free(tmp_path)


def test_without_file_locks_the_process_itself_is_looked_for(tmp_path: Path, monkeypatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(lock.errno.ENOLCK, "no locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", none)
    living = os.getppid()
    monkeypatch.setattr(lock.os, "getppid", lambda: 0)
    host = os.uname().nodename
    owner(tmp_path, host=host, pid=living, started=lock._started(living))
    with pytest.raises(lock.Busy, match=f"process {living} on {host}"):
        lock.Lock(tmp_path).acquire()
    owner(tmp_path, host=host, pid=living, started="another process of that number")
    lock.Lock(tmp_path).acquire(sign=False)


def test_a_sign_of_life_that_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    for text in ("", "[]", '{"host": 1}', "{"):
        (tmp_path / lock.OWNER).write_text(text)
        lock.check_free(tmp_path)


@pytest.mark.slow
def test_reading_needs_no_lock(tmp_path: Path) -> None:
    first = begin(cwd=tmp_path)
    before = content(tmp_path / "a" / "checkpoints")
    assert before
    done = start("evaluate", "checkpoint=a", "protocol.k=3", "cache=false", "trust=[tests]", cwd=tmp_path).wait()
    assert done.code == 0, done
    assert first.wait().code == 0
