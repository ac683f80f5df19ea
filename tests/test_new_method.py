"""Adding a method takes one .py and one .yaml: both are written to a folder outside the package, and it is tested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ssl_zoo import build, config
from ssl_zoo.errors import ConfigError
from tests import helpers
from tests.cli.test_runs import TINY, run

CODE = '''
from torch import nn
from ssl_zoo.losses.regression import cosine_regression
from ssl_zoo.methods.base import Method
from ssl_zoo.modules.ema import EMA


class Follow(Method):
    """Predict a teacher from eight views."""

    views_required = (2, 6)
    views_allowed = (2, 6)

    def __init__(self, backbone, optimizer, momentum: float = 0.9):
        super().__init__(backbone, optimizer)
        self.predictor = nn.Linear(backbone.out_features, backbone.out_features)
        self.teacher = EMA(backbone)
        self.momentum = momentum

    def training_loss(self, batch):
        target = self.teacher(batch.views[0])                                        # [B, F], no grad
        losses = [cosine_regression(self.predictor(self.backbone(view)), target) for view in batch.views[1:]]
        return {"loss": sum(losses) / len(losses)}

    def after_step(self):
        self.teacher.update(self.backbone, self.momentum)
'''
YAML = """# @package _global_
defaults:
  - override /augmentation: swav/small_multicrop
  - override /optimizer: sgd
method:
  _target_: follow.Follow
  backbone: ${backbone}
  optimizer: ${optimizer}
  momentum: 0.9
card: {name: Follow, year: 2026}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conf/method").mkdir(parents=True)
    (tmp_path / "conf/method/follow.yaml").write_text(YAML)
    (tmp_path / "follow.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "follow", raising=False)  # of another test
    return tmp_path


def search(folder: Path) -> str:
    return f"hydra.searchpath=[file://{folder / 'conf'}]"


def test_it_composes_builds_and_trains(folder: Path) -> None:
    extra = (search(folder), "augmentation.views.1.count=6")
    config.quick_check(config.load(["method=follow", *helpers.TINY, *extra]))
    build.check_signatures(config.load(["method=follow", *helpers.TINY, *extra]))
    method = helpers.tiny_method("follow", extra)
    # Two views of 16 pixels and six of three quarters of it, as the method wants.
    sizes = [helpers.SIZE] * 2 + [12] * 6
    before = {name: p.clone() for name, p in method.named_parameters()}
    for step in range(2):
        assert 0 < helpers.train_step(method, helpers.tiny_batch(sizes, step))["loss"] < 4
    assert all(not p.equal(before[name]) for name, p in method.named_parameters())


def test_views_that_do_not_suit_it_are_refused_with_both_numbers(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"gives 0 local view\(s\) and Follow needs at least 6"):
        build.check_signatures(config.load(["method=follow", "augmentation=simclr", search(folder)]))
    with pytest.raises(ConfigError, match=r"gives 4 local view\(s\) and Follow needs at least 6"):
        build.check_signatures(config.load(["method=follow", "data=synthetic", search(folder)]))


def test_a_misspelt_key_is_named_beside_a_search_path_too(folder: Path) -> None:
    with pytest.raises(ConfigError, match="method has no 'momentm'; did you mean 'momentum'"):
        config.load(["method=follow", "method.momentm=0.5", search(folder)])


@pytest.mark.slow
def test_the_command_line_finds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [word for word in TINY if not word.startswith("method.")]
    argv += ["--config-dir", str(folder / "conf"), "method=follow", "augmentation.views.1.count=6", "hydra.run.dir=run"]
    done = run("train.py", *argv, cwd=folder, path=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "run/checkpoints/last.ckpt").is_file()
