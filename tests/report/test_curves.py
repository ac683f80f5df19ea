import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ssl_zoo.errors import ConfigError
from ssl_zoo.loggers import COLUMNS
from ssl_zoo.report import curves

HEADER = ",".join(COLUMNS) + "\n"
ROWS = "0,0,,,52.5,,,,\n0,10,3.5,,,0.9,20,1000,0.1\n1,20,nan,71.25,66,0.8,30,1100,0.2\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_text(text)
    return path


def test_columns_hold_the_steps_that_have_a_number(tmp_path: Path):
    metrics = curves.read_metrics(write(tmp_path, HEADER + ROWS))
    assert metrics["knn/top1"][0].tolist() == [0, 20] and metrics["knn/top1"][1].tolist() == [52.5, 66.0]
    steps, loss = metrics["train/loss"]
    assert steps.tolist() == [10, 20] and loss[0] == 3.5 and math.isnan(loss[1])
    assert "step" not in metrics


def test_a_last_line_cut_short_is_read_as_far_as_it_goes(tmp_path: Path):
    metrics = curves.read_metrics(write(tmp_path, HEADER + ROWS + "1,3"))
    assert metrics["epoch"][1].tolist() == [0, 0, 1, 1]
    assert len(metrics["train/loss"][0]) == 2


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"metrics\.csv: there is no such file; give the folder of a run"):
        curves.save_curves(tmp_path)


def test_smooth_is_a_centred_mean_that_leaves_out_nan():
    assert curves.smooth(np.array([1.0, 2.0, 6.0, np.nan, 4.0]), 2).tolist() == [1.0, 3.0, 4.0, 5.0, 4.0]
    assert np.isnan(curves.smooth(np.array([np.nan]), 2)).all()


def test_accuracy_shows_the_untrained_line_and_the_baselines():
    axis = Figure().subplots()
    metrics = {"knn/top1": (np.array([0, 20]), np.array([52.5, 66.0]))}
    curves.draw_accuracy(axis, metrics, {"raw pixels kNN": 60.0})
    levels = {line.get_label(): line.get_ydata()[0] for line in axis.lines[1:]}
    assert levels == {"untrained kNN 52.5": 52.5, "raw pixels kNN 60.0": 60.0}
    assert axis.lines[0].get_label() == "kNN, last 66.0"


def test_a_resumed_run_without_step_zero_draws_no_untrained_line():
    axis = Figure().subplots()
    curves.draw_accuracy(axis, {"knn/top1": (np.array([20]), np.array([66.0]))}, {})
    assert len(axis.lines) == 1


def test_the_first_step_that_is_not_finite_is_marked():
    axis = Figure().subplots()
    curves.draw_loss(axis, {"train/loss": (np.array([10, 20, 30]), np.array([3.0, np.inf, np.nan]))})
    assert [text.get_text() for text in axis.texts] == ["not finite at step 20"]


def test_two_units_get_two_axes():
    figure = Figure()
    axis = figure.subplots()
    speed = (np.array([10, 20]), np.array([1000.0, 2000.0]))
    wait = (np.array([10, 20]), np.array([0.1, 0.2]))
    curves.draw_throughput(axis, {"throughput/samples_per_s": speed, "throughput/data_wait": wait})
    left, right = figure.axes
    assert left.get_ylim() == pytest.approx((0, 2200)) and right.get_ylim() == (0, 1)


def test_what_was_not_recorded_is_said():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    curves.draw_accuracy(left, {}, {})
    curves.draw_collapse(right, {})
    assert left.texts[0].get_text() == "not recorded\n(needs a labelled validation set)"
    assert right.texts[0].get_text() == "not recorded"


@pytest.mark.parametrize("rows", [ROWS, "", "0,10,nan,,,,,,\n"])
def test_any_metrics_make_a_picture(tmp_path: Path, rows: str):
    write(tmp_path, HEADER + rows)
    path = curves.save_curves(tmp_path)
    assert path == tmp_path / "curves.png"
    assert Image.open(path).size == (1320, 900)
