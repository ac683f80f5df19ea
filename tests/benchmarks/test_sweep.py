"""Reading the runs of a sweep, and the ablation of BYOL's norms as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ssl_zoo import config
from ssl_zoo.benchmarks.sweep import main, name_runs, read
from ssl_zoo.errors import ConfigError


def run_folder(sweep: Path, name: str, overrides: list[str], values: list[float]) -> None:
    folder = sweep / name
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    rows = [f"{epoch},{10 * epoch},{value}\n" for epoch, value in enumerate(values)]
    (folder / "metrics.csv").write_text("epoch,step,knn/top1\n" + "".join(rows))


def test_runs_are_named_by_what_tells_them_apart() -> None:
    assert name_runs([["a=1", "method.b=2"], ["a=1", "method.b=3"]]) == ["b=2", "b=3"]
    assert name_runs([["a=1"]]) == [""]


def test_a_sweep_becomes_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, (backbone, values) in enumerate({"resnet8": [30.0, 40.5], "resnet8_no_norm": [25.0, 24.0]}.items()):
        run_folder(tmp_path, f"{i}_byol", ["experiment=byol_bn_ablation", f"backbone={backbone}"], values)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| backbone=resnet8 | 30.0 | 40.5 | +10.5 |\n| backbone=resnet8_no_norm | 25.0 | 24.0 | -1.0 |" in out
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    assert [curve["steps"] for curve in json.loads((tmp_path / "sweep.json").read_text())] == [[0, 10]] * 2


def test_folders_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in (2, 10):
        run_folder(tmp_path, f"{i}_byol", [f"seed={i}"], [1.0, 2.0])
    assert [curve.name for curve in read(tmp_path, "knn/top1")] == ["seed=2", "seed=10"]


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="no run of it has probe/top1"):
        read(tmp_path, "probe/top1")
    assert main([]) == 1
    assert "wanted: python -m ssl_zoo.benchmarks.sweep FOLDER" in capsys.readouterr().err


def test_the_ablation_sets_the_norm_of_both_heads() -> None:
    words = ["experiment=byol_bn_ablation", "backbone=resnet8_gn_ws", "method.projector.norm=layer"]
    cfg = config.plain(config.load(words))
    assert (cfg["method"]["projector"]["norm"], cfg["method"]["predictor"]["norm"]) == ("layer", "layer")
    assert cfg["backbone"]["norm"] == "group" and cfg["data"]["subset"] == 5000
