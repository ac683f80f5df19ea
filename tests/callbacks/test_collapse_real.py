"""Real collapses of real trainings are named within 200 steps, and healthy trainings are left alone.

On scikit-learn's digits, which every clone has, and on CIFAR-10 where ``SSL_ZOO_CIFAR10`` names the folder that holds
``cifar-10-batches-py``.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf

from ssl_zoo import config, worker

ROOT = os.environ.get("SSL_ZOO_CIFAR10")
STEPS = 200
DATA = {
    # The beginning of 660 steps: on digits SimSiam collapses more slowly, and stops at a third of its rank where the
    # learning rate has fallen to nothing after 200 steps.
    "digits": ["data=digits", "trainer.max_epochs=60"],
    "cifar10": ["data=cifar10", f"data.root={ROOT}", "data.subset=5000", f"trainer.max_steps={STEPS}"],
}
QUIET = ["scale.width=16", "trainer=cpu", "callbacks=collapse", "logger=none", "report=false"]
COLLAPSES = {
    "simsiam method.stop_gradient=false": "use few directions .*method.stop_gradient=true",
    "byol method.predictor=null": "become alike .*method.predictor",
    "swav method.epsilon=1.0": "assigned to all 300 clusters alike .*method.epsilon",
    "dino method.centring=false": "assigned to the same few of .*method.centring=true",
}
# Without DINO on digits: its recipe ends at ln K there with the kNN accuracy of the run without centring, so that the
# monitor, which says so, is right.
HEALTHY = {
    "digits": ["simsiam", "byol", "swav", "fastsiam", "vicregl", "w_mse"],
    "cifar10": ["simsiam", "byol", "swav", "dino", "fastsiam", "vicregl", "w_mse"],
}

MARKS = {
    "digits": (),
    "cifar10": (pytest.mark.skipif(ROOT is None, reason="SSL_ZOO_CIFAR10 names no CIFAR-10"),),
}
pytestmark = pytest.mark.slow


class Stop(pl.Callback):
    """Ends a run early, with the schedules of the whole."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= STEPS


def warned(method: str, words: Sequence[str], folder: Path) -> list[str]:
    """What is said of a collapse in 200 steps."""
    cfg = config.load([f"method={method}", *QUIET, *words])
    cfg.run_dir = str(folder)
    OmegaConf.update(cfg, "callbacks.stop", {"_target_": f"{__name__}.Stop"}, force_add=True)
    config.quick_check(cfg)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        worker.run(cfg, folder)
    return [str(warning.message) for warning in caught if "collapse, for" in str(warning.message)]


def cases(of: Mapping[str, Iterable[str]]) -> list[Any]:
    """One for each data set and what is trained on it."""
    return [pytest.param(data, words, marks=MARKS[data]) for data, several in of.items() for words in several]


@pytest.mark.parametrize(("data", "words"), cases({data: COLLAPSES for data in DATA}))
def test_a_collapse_is_named_with_what_to_change(data: str, words: str, tmp_path: Path) -> None:
    method, *options = words.split()
    said = warned(method, [*DATA[data], *options], tmp_path)
    assert any(re.search(COLLAPSES[words], message, re.DOTALL) for message in said)


@pytest.mark.parametrize(("data", "name"), cases(HEALTHY))
def test_a_healthy_run_is_left_alone(data: str, name: str, tmp_path: Path) -> None:
    assert warned(name, DATA[data], tmp_path) == []
