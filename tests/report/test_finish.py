"""The end of a run: one protocol for every row, in summary.json, in the table and in the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo import build, config, runs
from ssl_zoo.evaluation import baselines
from ssl_zoo.report.finish import finish
from tests.data.helpers import pictures


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
    assert set(numbers["SimCLR"]) == {"linear", "knn", "l2_chosen"} and "linear probe" in capsys.readouterr().out
    assert not (tmp_path / "few_labels.png").exists()


def test_numbers_that_a_class_does_not_have_are_told(tmp_path: Path, capsys) -> None:
    finished(tmp_path, "few_labels=[1,200]")
    out = " ".join(capsys.readouterr().out.split())
    assert "few_labels: the smallest class has fewer than 200 labelled samples" in out


def of_folder(root: Path, out: Path, *words: str) -> dict[str, Any]:
    cfg = config.load(["data=folder", f"data.root={root}", "data.image_size=16", "data.batch_size=4", "data.workers=0",
                       "backbone.width=4", "data.source.cache=false", *words])  # fmt: skip
    data = build.build_data(cfg)
    method = build.build_method(cfg, data.info)
    out.mkdir(exist_ok=True)
    return finish(cfg, out, method, data, runs.Record.begin(config.plain(cfg)), torch.device("cpu"))


def test_small_classes_are_judged_with_a_penalty_that_folds_choose(tmp_path: Path, capsys) -> None:
    for c in range(4):
        pictures(tmp_path / "images" / f"class{c}", 4, seed=c)
    numbers = of_folder(tmp_path / "images", tmp_path / "run", "data.val_fraction=0.25", "few_labels=[1]")
    assert numbers["report"] == "made", numbers["report"]
    assert "folds of the training samples" in numbers["SimCLR"]["l2_chosen"]
    assert numbers["SimCLR"]["l2_chosen"] in " ".join(capsys.readouterr().out.split())


def test_labels_without_a_validation_set_are_judged_in_turn(tmp_path: Path, capsys) -> None:
    for c in range(4):
        pictures(tmp_path / "images" / f"class{c}", 3, seed=c)
    numbers = of_folder(tmp_path / "images", tmp_path / "run")
    assert numbers["report"] == "made", numbers["report"]
    assert {numbers[name]["images"] for name in ("SimCLR", "untrained network", "raw pixels")} == {12}
    assert numbers["SimCLR"]["folds"] == 3 and numbers["SimCLR"]["k"] == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "judged on 12 training samples" in out and "kNN leaves one out (k = 2)" in out and "3 folds" in out
    assert not (tmp_path / "run" / "neighbours.png").exists()


def test_images_without_labels_get_measures_without_labels_and_a_picture(tmp_path: Path, capsys) -> None:
    pictures(tmp_path / "images", 10)
    numbers = of_folder(tmp_path / "images", tmp_path / "run")
    assert numbers["report"] == "made", numbers["report"]
    assert json.loads((tmp_path / "run" / runs.SUMMARY).read_text())["SimCLR"] == numbers["SimCLR"]
    for name in ("SimCLR", "untrained network"):
        assert numbers[name]["images"] == 10 and 1 <= numbers[name]["rankme"] <= 10
        assert 0 <= numbers[name]["alignment"] <= 4 and -8 <= numbers[name]["uniformity"] <= 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Features of 10 training samples, without labels" in out and "the samples have no labels" in out
    with Image.open(tmp_path / "run" / "neighbours.png") as picture:
        assert picture.width > 500 and picture.height > 900 and len(np.unique(np.asarray(picture))) > 100


@pytest.mark.slow
def test_a_method_that_has_learnt_the_labels_is_not_judged_by_them(tmp_path: Path, capsys) -> None:
    for c in range(2):
        pictures(tmp_path / "images" / f"class{c}", 3, seed=c)
    numbers = of_folder(tmp_path / "images", tmp_path / "run", "method=supcon")
    assert numbers["report"] == "made" and "linear" not in numbers["SupCon"]
    assert "the method has learnt the labels of all labelled samples" in " ".join(capsys.readouterr().out.split())
