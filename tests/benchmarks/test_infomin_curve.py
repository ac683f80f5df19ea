"""The inverted U of InfoMin: what is read from runs, what is said of the curve, and a sweep."""

import json
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_zoo import config
from ssl_zoo.benchmarks.infomin_curve import Point, candidates_of, main, point, strengthened, sweet_spot
from ssl_zoo.errors import ConfigError


def run_folder(folder: Path, method: dict, rows: str) -> Path:
    folder.mkdir()
    OmegaConf.save(OmegaConf.create({"method": method}), folder / "config.yaml")
    (folder / "metrics.csv").write_text(rows)
    return folder


def test_the_bound_is_ln_candidates_less_the_loss_of_the_last_epoch(tmp_path):
    rows = "epoch,step,train/loss,probe/top1\n0,1,9,\n0,1,,20\n1,2,5,\n1,3,6,\n1,3,,40\n"
    found = point(run_folder(tmp_path / "a", {"queue_size": 4095}, rows), 0.4)
    assert (found.value, found.accuracy) == (0.4, 40.0)
    assert found.bound == pytest.approx(math.log(4096) - 5.5)
    assert point(tmp_path / "a", 0.4, candidates=100).bound == pytest.approx(math.log(100) - 5.5)


def test_runs_that_do_not_tell_are_refused(tmp_path):
    folder = run_folder(tmp_path / "a", {"queue_size": 15}, "epoch,step,train/loss,probe/top1\n0,1,9,\n")
    with pytest.raises(ConfigError, match="has no probe/top1 or knn/top1"):
        point(folder, 0.0)
    with pytest.raises(ConfigError, match="no method.queue_size; give candidates=N"):
        candidates_of({"temperature": 0.1})


def test_every_view_with_the_operation_is_changed_and_nothing_else():
    cfg = config.load(["method=byol", "data=synthetic"])
    changed = strengthened(cfg, "image/color_jitter", ["brightness", "hue"], 0.25)
    for old, new in zip(cfg.augmentation.views, changed.augmentation.views, strict=True):
        jitter = {name: arguments for entry in old.ops for name, arguments in entry.items()}
        wanted = {**jitter, "image/color_jitter": {**jitter["image/color_jitter"], "brightness": 0.25, "hue": 0.25}}
        assert {name: arguments for entry in new.ops for name, arguments in entry.items()} == wanted
    assert changed.data.augmentation == changed.augmentation
    with pytest.raises(ConfigError, match="op=image/color_jiter: no view .* has it; did you mean 'image/color_jitter'"):
        strengthened(cfg, "image/color_jiter", ["hue"], 0.25)


def test_a_turning_point_is_told_from_a_slope():
    slope = [Point(0.0, 5.0, 30.0), Point(0.4, 4.0, 40.0)]
    assert sweet_spot(slope).startswith("best at the end of the sweep (value 0.4, 40.0 %)")
    assert sweet_spot(slope).endswith("the views share less")
    assert sweet_spot([*slope, Point(0.8, 3.0, 35.0)]) == "sweet spot at value 0.4: 4.00 nats shared, 40.0 %"


def test_it_wants_a_folder(capsys):
    assert main(["method=moco_v2"]) == 1
    assert "out is not given" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_trains_draws_and_does_not_repeat_itself(tmp_path, capsys):
    words = ["data=synthetic", "data.image_size=16", "data.source.samples=128", "data.batch_size=64", "trainer=cpu"]
    words += ["backbone.width=4", "trainer.max_epochs=1", "method.queue_size=256", "report=false"]
    words += ["trainer.log_every=1", f"out={tmp_path}", "values=0,0.8"]
    assert main(words) == 0, capsys.readouterr().err
    points = json.loads((tmp_path / "curve.json").read_text())
    assert [p["value"] for p in points] == [0.0, 0.8] and (tmp_path / "curve.png").is_file()
    assert all(p["bound"] < math.log(257) and 0 <= p["accuracy"] <= 100 for p in points)
    times = [(tmp_path / name / "run.json").stat().st_mtime_ns for name in ("0", "0.8")]
    assert main(words) == 0
    assert [(tmp_path / name / "run.json").stat().st_mtime_ns for name in ("0", "0.8")] == times
