"""Each measure by a number that can be worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_zoo.report.study.measures import MEASURES, Run, read


def run(values: list[float], column: str = "knn/top1", **more: Any) -> Run:
    return Run(Path("x"), series={column: (np.arange(len(values)), np.array(values))}, **more)


CURVE = run([10.0, 30.0, 20.0])
SUMMARY = Run(Path("x"), config={"card": {"name": "X"}}, summary={"seconds": 5, "X": {"linear": 61.5}, "word": "no"})
SPIKY = run([1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 3.5, 1.0], "gradient/first")


@pytest.mark.parametrize(
    ("of", "how", "wanted"),
    [
        (CURVE, {"last": "knn/top1"}, 20.0),
        (CURVE, {"gain": "knn/top1"}, 10.0),
        (CURVE, {"largest": "knn/top1"}, 30.0),
        (CURVE, {"mean": "knn/top1"}, 25.0),
        (CURVE, {"mean": "knn/top1", "skip": 0}, 20.0),
        (SUMMARY, {"last": "seconds"}, 5.0),
        (SUMMARY, {"judged": "linear"}, 61.5),
        (SPIKY, {"spikes": "gradient/first"}, 2.0),
        (SPIKY, {"spikes": "gradient/first", "factor": 3.8}, 1.0),
    ],
)  # fmt: skip
def test_a_measure(of: Run, how: dict[str, Any], wanted: float) -> None:
    assert read(of, how) == wanted


def test_what_two_views_share_is_the_logarithm_of_the_candidates_less_the_loss() -> None:
    losses = run([9.0] * 18 + [2.0, 3.0], "train/loss", config={"method": {"queue_size": 4096}})
    assert read(losses, {"shared": "train/loss"}) == pytest.approx(math.log(4097) - 2.5)
    assert read(losses, {"shared": "train/loss", "candidates": 16}) == pytest.approx(math.log(16) - 2.5)
    assert read(run([1.0], "train/loss"), {"shared": "train/loss"}) is None


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_what_was_not_recorded_is_none(name: str) -> None:
    assert read(SUMMARY, {name: "probe/top1"}) is None


def test_a_value_that_is_not_a_number_is_none() -> None:
    assert read(run([1.0, math.nan]), {"last": "knn/top1"}) is None
    assert read(SUMMARY, {"last": "word"}) is None
