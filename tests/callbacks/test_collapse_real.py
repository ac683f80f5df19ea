"""Real collapses of real trainings are named within 200 steps, and healthy trainings are left alone."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import pytest

from ssl_zoo import config, worker

ROOT = os.environ.get("SSL_ZOO_CIFAR10")  # the folder that holds cifar-10-batches-py
pytestmark = [pytest.mark.slow, pytest.mark.skipif(ROOT is None, reason="SSL_ZOO_CIFAR10 names no CIFAR-10")]
SHORT = ["data=cifar10", f"data.root={ROOT}", "data.subset=5000", "scale.width=16", "trainer=cpu"]
QUIET = ["trainer.max_epochs=10", "trainer.max_steps=200", "callbacks=collapse", "logger=none", "report=false"]
COLLAPSES = {
    "simsiam method.stop_gradient=false": "use few directions .*method.stop_gradient=true",
    "byol method.predictor=null": "become alike .*method.predictor",
    "swav method.epsilon=1.0": "assigned to all 300 clusters alike .*method.epsilon",
    "dino method.centring=false": "assigned to the same few of .*method.centring=true",
}


def warned(words: str, folder: Path) -> list[str]:
    """What is said of a collapse in 200 steps."""
    name, *options = words.split()
    cfg = config.load([f"method={name}", *SHORT, *QUIET, *options])
    cfg.run_dir = str(folder)
    config.quick_check(cfg)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        worker.run(cfg, folder)
    return [str(warning.message) for warning in caught if "collapse, for" in str(warning.message)]


@pytest.mark.parametrize("words", COLLAPSES)
def test_a_collapse_is_named_with_what_to_change(words: str, tmp_path: Path) -> None:
    assert any(re.search(COLLAPSES[words], message, re.DOTALL) for message in warned(words, tmp_path))


@pytest.mark.parametrize("name", ["simsiam", "byol", "swav", "dino", "fastsiam", "vicregl", "w_mse"])
def test_a_healthy_run_is_left_alone(name: str, tmp_path: Path) -> None:
    assert warned(name, tmp_path) == []
