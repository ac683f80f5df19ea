"""What the drawings put on an axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ssl_zoo.report.study import drawings, sweep
from ssl_zoo.report.study.sweep import Results
from tests.report.study.made import run_folder, study

GRID = {("a", "16"): 20.0, ("a", "4"): 10.0, ("b", "4"): 30.0}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    for number, ((first, second), value) in enumerate(GRID.items()):
        words = ["experiment=made", f"method.first={first}", f"method.second={second}"]
        run_folder(tmp_path, number, words, [0.0, value], summary={"cost": 2 * value})
    changes = {"vary": {"method.second": None, "method.first": ["b", "a"]}, "claims": [], "numbers": {},
               "measures": {"kNN": {"last": "knn/top1"}, "cost": {"last": "cost"}}}  # fmt: skip
    return sweep.read(study(**changes), tmp_path)


def axis() -> object:
    return Figure().subplots()


def test_a_heat_map_has_a_field_for_each_pair_and_a_gap_where_nothing_ran(results: Results) -> None:
    panel = axis()
    drawings.heat_map(panel, results, "kNN")
    (image,) = panel.images
    assert np.array_equal(np.ma.filled(image.get_array(), np.nan), [[30.0, 10.0], [np.nan, 20.0]], equal_nan=True)
    assert sorted(text.get_text() for text in panel.texts) == ["10.0", "20.0", "30.0"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["b", "a"]


def test_bars_stand_side_by_side(results: Results) -> None:
    panel = axis()
    drawings.bars(panel, results, "kNN")
    heights = [[bar.get_height() for bar in group] for group in panel.containers if hasattr(group, "patches")]
    assert np.array_equal(heights, [[30.0, np.nan], [10.0, 20.0]], equal_nan=True)
    assert panel.get_legend_handles_labels()[1] == ["b", "a"]


def test_lines_lie_over_the_numbers_of_the_first_setting(results: Results) -> None:
    panel = axis()
    drawings.lines(panel, results, "kNN", log=True)
    found = {line.get_label(): line for line in panel.containers}
    assert found["a"].lines[0].get_xydata().tolist() == [[4.0, 10.0], [16.0, 20.0]]
    assert found["b"].lines[0].get_xydata().tolist() == [[4.0, 30.0]]
    assert panel.get_xscale() == "log"


def test_curves_are_those_of_every_run(results: Results) -> None:
    panel = axis()
    drawings.curves(panel, results, "knn/top1")
    assert [line.get_ydata().tolist() for line in panel.lines] == [[0.0, 30.0], [0.0, 10.0], [0.0, 20.0]]


def test_one_measure_against_another(results: Results) -> None:
    panel = axis()
    drawings.against(panel, results, "kNN", x="cost")
    assert panel.lines[0].get_xydata().tolist() == [[60.0, 30.0], [20.0, 10.0], [40.0, 20.0]]
    assert panel.texts[0].get_text() == "4, b"


def test_what_was_not_measured_says_so(results: Results) -> None:
    panel = axis()
    drawings.curves(panel, results, "gradient/first")
    assert panel.texts[0].get_text() == "not measured"
