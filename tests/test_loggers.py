from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from ssl_zoo.loggers import COLUMNS, MetricsCSV
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
        cfg = compose(overrides=[*overrides, "+evaluate_every=1"])
    built = {name: instantiate(node) for name, node in (cfg.get("callbacks") or {}).items()}
    assert list(built) == names
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        wandb = compose(overrides=["+logger=wandb", "+run_dir=x"]).logger
    assert list(wandb) == ["csv", "wandb"]
