from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_zoo.callbacks import observe
from ssl_zoo.callbacks.online_knn import OnlineKNN
from ssl_zoo.callbacks.online_probe import OnlineProbe
from ssl_zoo.data.splits import balanced_rows
from tests.callbacks.test_online_probe import SaveAt
from tests.callbacks.tiny import SAMPLES, Rows, TinyData, fit


def test_the_bank_is_balanced_fixed_and_without_unlabelled_samples() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 4 + [-1] * 16)
    rows = balanced_rows(labels, 24)
    assert labels[rows].bincount().tolist() == [10, 10, 4]
    assert torch.equal(rows, balanced_rows(labels, 24))
    assert torch.equal(rows, rows.unique())
    assert len(balanced_rows(labels, 1000)) == 84


def test_the_untrained_network_comes_first_and_the_last_epoch_always() -> None:
    rows, knn = Rows(), OnlineKNN(every_n_epochs=2, bank_size=12, k=3)
    _, method = fit([knn], logger=rows)
    top1 = rows.column("knn/top1")
    assert list(top1) == [0, 8, 12]
    assert knn.untrained == top1[0]
    assert method.metrics["knn/top1"] == top1[12]


def test_a_bank_of_the_validation_samples_finds_each_of_them() -> None:
    knn = OnlineKNN(bank_size=SAMPLES, k=1)
    fit([knn], max_epochs=1)
    assert knn.latest == {"knn/top1": 100.0}


def test_a_resumed_run_keeps_the_untrained_value_and_does_not_measure_it_again(tmp_path: Path) -> None:
    rows, first, resumed = Rows(), OnlineKNN(), OnlineKNN()
    fit([first, SaveAt(4, tmp_path / "a.ckpt")], max_epochs=1)
    fit([resumed], resume=tmp_path / "a.ckpt", logger=rows, max_epochs=2)
    assert resumed.untrained == first.untrained is not None
    assert 0 not in rows.column("knn/top1")


def test_probe_and_knn_share_one_pass_over_the_validation_set(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    val_loader = TinyData._evaluation
    monkeypatch.setattr(TinyData, "_evaluation", lambda self, rows: passes.append(len(rows)) or val_loader(self, rows))
    _, method = fit([OnlineKNN(bank_size=10), OnlineProbe()], max_epochs=2)
    # Twice at the start only to see that there is a validation set; then one pass per evaluation, of three.
    assert passes.count(SAMPLES) == 2 + 3
    assert passes.count(10) == 3
    observe.forget_validation(method)


def test_it_switches_itself_off(capsys: pytest.CaptureFixture) -> None:
    _, method = fit([OnlineKNN()], data=TinyData(classes=None))
    assert capsys.readouterr().out.splitlines().count("online_knn is off: the training set has no labels") == 1
    assert "knn/top1" not in method.metrics


def test_it_tells_how_equal_the_classes_fare() -> None:
    knn = OnlineKNN(bank_size=SAMPLES, k=1, by_class=True)
    fit([knn], max_epochs=1)
    assert knn.latest == {"knn/top1": 100.0, "knn/balancedness": 1.0}
