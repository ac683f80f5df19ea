"""What PCL, MiCE, SpCL and DeepCluster compute once an epoch survives an interruption anywhere, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ssl_zoo import config, worker
from ssl_zoo.data.source import Part
from ssl_zoo.seeding import seed_generators
from tests.helpers import quickly

TINY = [
    "data=synthetic", "data.source.samples=48", "data.source.val_samples=16", "data.image_size=16", "data.batch_size=8",
    "backbone.width=4", "trainer.max_epochs=3", "trainer=cpu", "trainer.checkpoint_every=1", "report=false",
    "logger=none", "callbacks=none",
]  # fmt: skip
HEAD = ["method.projector.hidden=[8]", "method.projector.out_features=8", "method.queue_size=16", "batch_norm.group=4"]
METHODS = {
    "pcl": [*HEAD, "method.clusters=[16, 20]", "method.negatives=8", "method.warmup_epochs=1"],
    "mice": HEAD,
    "spcl": ["method.k1=6", "method.k2=2", "method.min_samples=3"],
    "deepcluster": [*HEAD[:2], "method.clusters=6", "method.dropout=0.5"],
    "deepcluster_v2": [*HEAD[:2], "method.clusters=[6, 5, 4]"],
}


class Stopped(Exception):
    pass


class Stop(pl.Callback):
    """The run ends here without a word: before a step, at the end of an epoch before and after it is saved."""

    def __init__(self, where: str, at: int) -> None:
        self.where, self.at = where, at

    def _stop(self, where: str, at: int) -> None:
        if (where, at) == (self.where, self.at):
            raise Stopped

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop("step", trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop("epoch_end", trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop("epoch_start", trainer.current_epoch)


def fit(name: str, folder: Path, *extra: str) -> dict[str, Any]:
    cfg = config.load([f"method={name}", *TINY, *METHODS[name], *extra])
    cfg.run_dir = str(folder)
    worker.run(cfg, folder)
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("step", 8),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("epoch_end", 1), ("epoch_start", 2), ("step", 12))),
    ],
)
@pytest.mark.parametrize("name", quickly(list(METHODS), ["deepcluster_v2"]))
def test_a_run_that_is_cut_off_continues_bit_for_bit(tmp_path: Path, name: str, where: str, at: int) -> None:
    whole = fit(name, tmp_path / "whole")
    stop = f"+callbacks.stop={{_target_: {__name__}.Stop, where: {where}, at: {at}}}"
    with pytest.raises(Stopped):
        fit(name, tmp_path / "cut", stop)
    resumed = fit(name, tmp_path / "cut", f"resume={tmp_path}/cut/checkpoints/last.ckpt")
    assert whole.keys() == resumed.keys()
    same = {key: torch.equal(a, resumed[key]) if isinstance(a, torch.Tensor) else a == resumed[key]
            for key, a in whole.items()}  # fmt: skip
    assert [key for key, value in same.items() if not value] == []


@pytest.mark.slow
def test_the_epochs_left_their_marks(tmp_path: Path) -> None:
    state = fit("pcl", tmp_path / "pcl")
    assert state["granularities.0._extra_state"] == {"filled": True}
    assert len(state["granularities.1.assignment"].unique()) == 20
    state = fit("mice", tmp_path / "mice")
    lengths = state["prototypes"].norm(dim=1)
    assert state["centres._extra_state"] == {"added": 0} and not state["centres.sums"].any()
    assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()
    state = fit("spcl", tmp_path / "spcl")
    labels = state["memory.labels"]
    assert len(labels.unique()) < 48 and labels.max() == len(labels.unique()) - 1
    assert 0 <= float(state["limit"]) <= 1


def test_a_source_domain_needs_labels_and_a_target_without(tmp_path: Path) -> None:
    from ssl_zoo.errors import ConfigError

    with pytest.raises(ConfigError, match="method.source=true: all of the 48 training samples have a label"):
        fit("spcl", tmp_path, "method.source=true")
    with pytest.raises(ConfigError, match="method.source=true needs a labelled source domain"):
        fit("spcl", tmp_path, "method.source=true", "data.source.classes=null")


def test_a_source_domain_shares_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Part.__init__

    def half(self: Part, source: Any, positions: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        inner(self, source, positions, labels)
        if len(positions) == 48:
            self.labels = torch.where(torch.arange(48) < 24, self.labels, -1)

    monkeypatch.setattr(Part, "__init__", half)
    state = fit("spcl", tmp_path, "method.source=true")
    labels = state["memory.labels"]
    assert len(labels) == 4 + 48 and labels[:4].tolist() == [0, 1, 2, 3]
    assert labels[4:28].tolist() == [-1] * 24 and labels[28:].min() == 4


@pytest.mark.parametrize("name", ["pcl", "deepcluster"])
def test_a_run_in_double_precision_reads_its_images_in_double_precision(name: str, tmp_path: Path) -> None:
    state = fit(name, tmp_path, "trainer.precision=64-true", "trainer.max_epochs=2")
    assert state["backbone.net.conv1.weight"].dtype == torch.float64


def test_a_step_is_seeded_as_torch_would() -> None:
    torch.manual_seed(2**63 - 5)
    wanted = torch.rand(4)
    seed_generators(2**63 - 5, torch.device("cpu"))
    assert torch.equal(torch.rand(4), wanted)
