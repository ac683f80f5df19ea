from __future__ import annotations

import csv
import itertools
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from ssl_zoo.loggers import COLUMNS, TAIL, MetricsCSV
from tests.callbacks.tiny import fit


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def header(path: Path) -> list[str]:
    return path.read_text().splitlines()[0].split(",")


def test_one_row_per_step_in_the_order_of_columns_and_readable_at_any_moment(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "run" / "metrics.csv")
    log.log_metrics({"train/loss": torch.tensor(1 / 3), "epoch": 0}, step=1)
    assert rows(log.path) == [{"epoch": "0", "step": "1", "train/loss": "0.3333333"}]
    log.log_metrics({"probe/top1": 50.0, "epoch": 0}, step=1)
    log.log_metrics({"train/loss": 0.25, "epoch": 1}, step=2)
    assert rows(log.path) == [
        {"epoch": "0", "step": "1", "train/loss": "0.3333333", "probe/top1": "50"},
        {"epoch": "1", "step": "2", "train/loss": "0.25"},
    ]
    assert header(log.path) == list(COLUMNS)


def test_a_shorter_value_in_the_last_row_leaves_no_rest_behind(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 0.123456, "epoch": 10}, step=1)
    log.log_metrics({"train/loss": 1.0, "epoch": 1}, step=1)
    assert rows(log.path) == [{"epoch": "1", "step": "1", "train/loss": "1"}]


def test_new_names_become_last_columns(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1.0}, step=1)
    log.log_metrics({"lr": 0.1, "train/std": 2.0}, step=2)
    log.log_metrics({"train/loss": 0.5}, step=3)
    assert header(log.path) == [*COLUMNS, "lr", "train/std"]
    assert rows(log.path) == [
        {"step": "1", "train/loss": "1"},
        {"step": "2", "lr": "0.1", "train/std": "2"},
        {"step": "3", "train/loss": "0.5"},
    ]


def test_an_earlier_step_finds_its_row_and_no_step_means_the_last(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    for step in (1, 3):
        log.log_metrics({"train/loss": step}, step=step)
    log.log_metrics({"knn/top1": 9}, step=1)
    log.log_metrics({"train/loss": 2}, step=2)
    log.log_metrics({"knn/top1": 7})
    assert [row["step"] for row in rows(log.path)] == ["1", "2", "3"]
    assert rows(log.path)[0] == {"step": "1", "train/loss": "1", "knn/top1": "9"}
    assert rows(log.path)[2] == {"step": "3", "train/loss": "3", "knn/top1": "7"}


def test_a_resumed_run_drops_the_rows_after_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCSV(path)
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": step, "lr": 0.1}, step=step)
    resumed = MetricsCSV(path)
    resumed.truncate(2)
    resumed.log_metrics({"probe/top1": 5.0}, step=2)
    resumed.log_metrics({"train/loss": 9}, step=3)
    assert [(row["step"], row.get("train/loss")) for row in rows(path)] == [("1", "1"), ("2", "2"), ("3", "9")]
    assert rows(path)[1]["probe/top1"] == "5"
    assert header(path) == [*COLUMNS, "lr"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_last_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsCSV(path).log_metrics({"train/loss": 1}, step=1)
    with path.open("a") as file:
        file.write("0,2,0.")
    MetricsCSV(path).log_metrics({"train/loss": 3}, step=3)
    assert [row["step"] for row in rows(path)] == ["1", "3"]


def test_a_full_disk_costs_one_warning_and_what_fits_again_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"train/loss": 1}, step=1)
    whole = Path.open

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log.log_metrics({"train/loss": 2}, step=2)
        log.log_metrics({"train/loss": 3}, step=3)
    monkeypatch.setattr(Path, "open", whole)
    (message,) = [str(warning.message) for warning in caught]
    assert "No space left on device" in message and str(log.path) in message
    log.log_metrics({"train/loss": 4}, step=4)
    assert [row["step"] for row in rows(log.path)] == ["1", "4"]


class Disk:
    """Counts the bytes that reach files, and can cut the process off at any write, rename, cut and removal.

    A write is two points: one before it, and one after half of its bytes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kill_at: int | None = None) -> None:
        self.written = 0
        self.points = 0
        self.kill_at = kill_at
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: Watched(opened(path, *args, **kwargs), self))
        for owner, name in ((os, "replace"), (os, "truncate"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._watch(getattr(owner, name)))

    def _watch(self, call: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.point()
            return call(*args, **kwargs)

        return watched

    def point(self) -> None:
        self.points += 1
        if self.points == self.kill_at:
            raise Killed


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


class Watched:
    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, data: Any) -> int:
        self.disk.point()
        half = len(data) // 2
        self.file.write(data[:half])
        self.disk.point()
        self.disk.written += len(data)
        return half + self.file.write(data[half:])

    def truncate(self) -> None:
        self.disk.point()
        self.file.truncate()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __iter__(self) -> Any:
        return iter(self.file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def long_file(path: Path, count: int) -> None:
    """Rows at the steps 50, 100, …; 31 bytes or more each."""
    lines = [f"{i // 500},{50 * i},{1 / i:.7g},,,,,1234.567,0.0123\n" for i in range(1, count + 1)]
    path.write_text(",".join(COLUMNS) + "\n" + "".join(lines))


@pytest.mark.parametrize(
    ("step", "name"),
    [(1_000_050, "train/loss"), (1_000_000, "train/loss"), (999_999, "train/loss"), (999_000, "probe/top1")],
    ids=["next", "last", "late", "twenty rows late"],
)
def test_a_row_costs_its_own_bytes_however_long_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, name: str
) -> None:
    long_file(tmp_path / "metrics.csv", 20_000)
    log = MetricsCSV(tmp_path / "metrics.csv")
    log.log_metrics({"knn/top1": 1.0})
    whole = log.path.read_bytes()
    disk = Disk(monkeypatch)
    log.log_metrics({name: 0.5}, step=step)
    monkeypatch.undo()
    assert 0 < disk.written < 3000 < len(whole) / 200
    steps = [int(row["step"]) for row in rows(log.path)]
    assert steps == sorted({*range(50, 1_000_001, 50), step})
    assert rows(log.path)[steps.index(step)][name] == "0.5"
    assert log.path.read_bytes()[:800_000] == whole[:800_000]


def test_a_new_column_leaves_the_bytes_of_the_rows_and_what_follows_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    long_file(path, 100)
    log = MetricsCSV(path)
    log.log_metrics({"knn/top1": 1.0})
    before = path.read_bytes().partition(b"\n")[2]
    monkeypatch.setattr("ssl_zoo.loggers._parse", None)  # nothing is read again
    log.log_metrics({"a, b": 2.0}, step=5050)
    log.log_metrics({"lr": 3.0}, step=4999)
    log.log_metrics({"epoch": 4}, step=5100)
    assert path.read_bytes().partition(b"\n")[2].startswith(before[: before.index(b",5000,") - 2])
    assert list(csv.reader(path.open(newline="")))[0] == [*COLUMNS, "a, b", "lr"]
    found = {row["step"]: row for row in rows(path)}
    assert found["5050"] == {"step": "5050", "a, b": "2"} and found["4999"] == {"step": "4999", "lr": "3"}
    assert found["5000"]["knn/top1"] == "1" and found["5100"] == {"step": "5100", "epoch": "4"}
    assert [int(row["step"]) for row in rows(path)] == [*range(50, 5000, 50), 4999, 5000, 5050, 5100]


def test_a_row_older_than_the_tail_is_sorted_in_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    long_file(path, 2 * TAIL)
    log = MetricsCSV(path)
    log.log_metrics({"lr": 0.1}, step=75)
    log.log_metrics({"lr": 0.2}, step=50)
    log.log_metrics({"lr": 0.3})
    found = {int(row["step"]): row for row in rows(path)}
    assert list(found) == [50, 75, *range(100, 100 * TAIL + 1, 50)]
    assert found[75] == {"step": "75", "lr": "0.1"} and found[50]["lr"] == "0.2" and found[50]["train/loss"] == "1"
    assert found[100 * TAIL]["lr"] == "0.3"


@pytest.mark.parametrize(
    "rest",
    [
        *("0,150,0.", "0,150", "\0\0"),  # a line that was begun
        *("5\n", ",,\n0,1", ",,,1234.567,0.0123\n", "\0\0\0\n", "x,y,z,,,,,,\n", '0,150,"3,,\n'),  # an older one's end
    ],
)
def test_what_a_kill_has_left_of_a_line_is_dropped(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "metrics.csv"
    long_file(path, 2)
    whole = path.read_text()
    path.write_text(whole + rest)
    log = MetricsCSV(path)
    log.truncate(100)
    assert path.read_text() == whole
    log.log_metrics({"train/loss": 3}, step=150)
    assert path.read_text() == whole + "," + "150,3,,,,,,\n"


def test_a_stale_copy_of_the_last_row_changes_nothing_in_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(",".join(COLUMNS) + "\n10,50,0.5,,,,,,\n" + "0,50,0.625,7,,,,,\n")
    MetricsCSV(path).truncate(50)
    assert rows(path) == [{"epoch": "10", "step": "50", "train/loss": "0.5", "probe/top1": "7"}]


def test_a_table_of_others_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("time,loss\n1,2\n")
    with pytest.warns(UserWarning, match="its first line names no column 'step'"):
        MetricsCSV(path).log_metrics({"train/loss": 1.0}, step=1)
    assert path.read_text() == "time,loss\n1,2\n"


CALLS: list[tuple[dict[str, float], int]] = [
    ({"train/loss": 0.5, "lr": 0.125}, 10),
    ({"throughput/samples_per_s": 1234.5}, 20),
    ({"train/loss": 0.25, "lr": 0.125}, 19),
    ({"train/loss": 0.125, "lr": 0.0625}, 20),
    ({"probe/top1": 50.0}, 20),
    ({"train/loss": 1.0}, 30),
    ({"knn/top1": 40.0, "train/std": 2.0}, 30),
    ({"train/loss": 2.0}, 29),
    ({"probe/top1": 5.0}, 30),
]
CHECKPOINTS = {3: 20, 5: 20, 8: 30}  # after so many calls, a checkpoint of that step is saved


def test_killed_at_any_write_the_rows_up_to_the_checkpoint_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(log: MetricsCSV, begin: int = 0) -> Any:
        """Log and save; after every call: how many were made, and the rows up to the checkpoint, if there is one."""
        for i, (metrics, step) in enumerate(CALLS[begin:], begin + 1):
            log.log_metrics(metrics, step=step)
            if i in CHECKPOINTS:
                yield i, [row for row in rows(log.path) if int(row["step"]) <= CHECKPOINTS[i]]

    whole = MetricsCSV(tmp_path / "whole.csv")
    assert len(list(play(whole))) == 3
    for kill_at in itertools.count(1):
        path = tmp_path / str(kill_at) / "metrics.csv"
        saved: list[Any] = [(0, [])]
        with monkeypatch.context() as patch, suppress(Killed):
            disk = Disk(patch, kill_at)
            saved.extend(play(MetricsCSV(path)))
            break
        calls, kept = saved[-1]
        resumed = MetricsCSV(path)
        resumed.truncate(CHECKPOINTS.get(calls, 0))
        found = rows(path)
        assert [row["step"] for row in found] == [row["step"] for row in kept], kill_at
        assert all(before.items() <= after.items() for before, after in zip(kept, found, strict=True)), kill_at
        list(play(resumed, calls))
        assert rows(path) == rows(whole.path), kill_at
        assert list(path.parent.iterdir()) == [path], kill_at
    assert disk.points == kill_at - 1 > 50
    print(f"killed at {disk.points} points")


def test_a_run_writes_its_losses(tmp_path: Path) -> None:
    log = MetricsCSV(tmp_path / "metrics.csv")
    _, method = fit([], logger=log)
    written = rows(log.path)
    assert [int(row["step"]) for row in written] == list(range(1, 13))
    assert float(written[-1]["train/loss"]) == pytest.approx(method.metrics["train/loss"], rel=1e-6)
    assert all(row["lr"] for row in written)
    assert log.save_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("choice", "names"),
    [("default", ["csv", "tensorboard"]), ("csv", ["csv"]), ("tensorboard", ["tensorboard"]), ("none", [])],
)
def test_the_logger_configs_build(choice: str, names: list[str], tmp_path: Path) -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose(overrides=[f"+logger={choice}", f"+run_dir={tmp_path}"])
    assert list(cfg.get("logger") or {}) == names
    built = {name: instantiate(node) for name, node in (cfg.get("logger") or {}).items()}
    if "csv" in built:
        assert built["csv"].path == tmp_path / "metrics.csv"
    if "tensorboard" in built:
        assert built["tensorboard"].log_dir == str(tmp_path / "tensorboard")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (
            ["+callbacks=default"],
            ["nan_guard", "throughput", "collapse", "online_knn", "online_probe", "progress"],
        ),
        (["+callbacks=[nan_guard,progress]"], ["nan_guard", "progress"]),
        (["+callbacks=none"], []),
    ],
)
def test_the_callback_configs_build_in_their_order(overrides: list[str], names: list[str]) -> None:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose(overrides=[*overrides, "+evaluate_every=1", "+layer=null"])
    built = {name: instantiate(node) for name, node in (cfg.get("callbacks") or {}).items()}
    assert list(built) == names
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        wandb = compose(overrides=["+logger=wandb", "+run_dir=x"]).logger
    assert list(wandb) == ["csv", "wandb"]
