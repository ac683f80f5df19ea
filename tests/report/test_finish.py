"""The end of a run: one protocol for every row, in summary.json, in the table and in the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ssl_zoo import build, config, runs
from ssl_zoo.evaluation import baselines
from ssl_zoo.report.finish import finish


def finished(folder: Path, *words: str) -> tuple[dict[str, Any], Any, Any]:
    cfg = config.load(["backbone.width=4", "data.image_size=8", "data.subset=300", *words])
    data = build.build_data(cfg)
    method = build.build_method(cfg, data.info)
    numbers = finish(cfg, folder, method, data, runs.Record.begin(config.plain(cfg)), torch.device("cpu"))
    return numbers, method, data


def test_few_labels_stand_in_the_summary_in_the_table_and_in_a_picture(tmp_path: Path, capsys) -> None:
    numbers, method, data = finished(tmp_path, "few_labels=[1,3]")
    assert numbers["report"] == "made", numbers["report"]
    wanted = baselines.compare(method, data, counts=[1, 3])
    assert numbers["SimCLR"] == wanted and list(wanted["few_labels"]) == ["1", "3"]
    assert json.loads((tmp_path / runs.SUMMARY).read_text())["raw pixels"] == numbers["raw pixels"]
    out = capsys.readouterr().out
    score = numbers["raw pixels"]["few_labels"]["3"]
    assert f"{score['mean']:.1f} ±{score['spread']:.1f}" in out and "3 labels" in out
    assert (tmp_path / "few_labels.png").stat().st_size > 10_000


def test_null_switches_few_labels_off(tmp_path: Path, capsys) -> None:
    numbers, *_ = finished(tmp_path, "few_labels=null")
    assert set(numbers["SimCLR"]) == {"linear", "knn"} and "linear probe" in capsys.readouterr().out
    assert not (tmp_path / "few_labels.png").exists()


def test_numbers_that_a_class_does_not_have_are_told(tmp_path: Path, capsys) -> None:
    finished(tmp_path, "few_labels=[1,200]")
    out = " ".join(capsys.readouterr().out.split())
    assert "few_labels: the smallest class has fewer than 200 labelled samples" in out
