"""Killed at any write or rename, a run goes on from a whole state and ends as if nothing had happened."""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from pathlib import Path

import pytest

from ssl_zoo import runs
from tests.cli import faults
from tests.cli.commands import train
from tests.cli.test_runs import assert_same, weights

WORDS = ["hydra.run.dir=run", "resume=auto", "trainer.checkpoint_every=3", "trainer.keep_every=1"]


def points(folder: Path) -> list[tuple[int, str, str]]:
    """(number, kind, file) of all that a run writes and renames in its folder."""
    folder.mkdir()
    first = functools.partial(faults.install, str(folder / "run"), str(folder / "log"), None)
    done = train(*WORDS, cwd=folder, first=first)
    assert done.code == 0, done
    lines = [line.split(" ", 2) for line in (folder / "log").read_text().splitlines()]
    return [(int(number), kind, path) for number, kind, path in lines]


def chosen(every: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """All renames and writes, but of the hundreds in which a checkpoint is written the first, a middle and the last."""
    groups: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    kept = [point for point in every if not (point[1] == "write" and point[2].endswith(".ckpt.part"))]
    group, before = 0, None
    for point in every:
        if point not in kept:
            group += before is None or point[0] != before + 1
            groups[group].append(point)
            before = point[0]
    for writes in groups.values():
        kept += [writes[0], writes[len(writes) // 2], writes[-1]]
    return sorted(set(kept))


def check(folder: Path, whole: Path, point: tuple[int, str, str]) -> None:
    folder.mkdir()
    first = functools.partial(faults.install, str(folder / "run"), str(folder / "log"), point[0])
    done = train(*WORDS, cwd=folder, first=first)
    assert done.code == -9, (point, done)
    done = train(*WORDS, cwd=folder)
    assert done.code == 0, (point, done)
    record = runs.read_record(folder / "run")
    assert record is not None and record.state == "finished", point
    last = folder / "run/checkpoints/last.ckpt"
    for file in (folder / "run/checkpoints").glob("*.ckpt"):
        if file != last:
            runs.read_checkpoint(file)
            file.unlink()
    assert_same(weights(folder), weights(whole))
    rows = [list(csv.DictReader((run / "run/metrics.csv").open())) for run in (whole, folder)]
    for column in ("step", "train/loss", "knn/top1", "probe/top1"):
        assert [row[column] for row in rows[0]] == [row[column] for row in rows[1]], (point, column)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str, str]]]:
    folder = tmp_path_factory.mktemp("faults") / "whole"
    found = chosen(points(folder))
    for file in (folder / "run/checkpoints").glob("*.ckpt"):
        if file.name != "last.ckpt":
            file.unlink()
    return folder, found


@pytest.mark.slow
def test_what_a_run_writes_is_known(whole: tuple[Path, list[tuple[int, str, str]]]) -> None:
    written = {Path(path).name.split(".json.")[0].split(".yaml.")[0] for _, _, path in whole[1]}
    assert {"run", "config", "metrics.csv", "last.ckpt", "last.ckpt.part", "epoch-0001.ckpt", "summary"} <= written


@pytest.mark.parametrize("share", [pytest.param(0.25, marks=pytest.mark.slow), 0.8])
def test_killed_at_a_write_or_rename_it_goes_on(
    tmp_path: Path, whole: tuple[Path, list[tuple[int, str, str]]], share: float
) -> None:
    folder, found = whole
    check(tmp_path / "cut", folder, found[int(share * len(found))])


@pytest.mark.slow
def test_killed_at_every_write_and_rename_it_goes_on(
    tmp_path: Path, whole: tuple[Path, list[tuple[int, str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found = whole
    for point in found:
        check(tmp_path / str(point[0]), folder, point)
    writes = sum(kind == "write" for _, kind, _ in found)
    with capsys.disabled():
        print(f"\nkilled at {writes} writes and {len(found) - writes} renames and removals: all go on")
