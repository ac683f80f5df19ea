"""Samples that are single tensors and no images: rows of numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.augmentations import registry
from ssl_zoo.augmentations.pipeline import Augmentation
from ssl_zoo.augmentations.rng import Draw
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.source import DamagedFile, Splits
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.label_free import look
from tests.data.helpers import batches

VIEWS = [{"count": 2, "ops": [{"rows/noise": {"scale": 0.5}}]}, {"kind": "local", "ops": [{"rows/first": {}}]}]


class Noise(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        return view + self.scale * draw.normal("noise", view.shape[1])


class First(nn.Module):
    """Half of the columns; of how many there are the source says."""

    def __init__(self, columns: int | None = None) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, view: Tensor, draw: Draw) -> Tensor:
        if self.columns is not None and view.shape[1] != self.columns:
            raise ValueError(f"rows/first: got {view.shape[1]} columns, the source says {self.columns}")
        return view[:, : (self.columns or 2) // 2]


class RowViews(Augmentation):
    modality = "rows"


class Rows:
    damage_limit = 2
    classes = ["a", "b"]

    def __init__(self, in_memory: bool = True, columns: int = 6, damaged: tuple[int, ...] = ()) -> None:
        self.values = torch.randn(24, 6, generator=torch.Generator().manual_seed(3))
        self.labels = torch.arange(24) % 2
        self.in_memory = in_memory
        self.facts = {"columns": columns}
        self.damaged = damaged

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, index: Tensor) -> Tensor:
        return self.values[index]

    def load(self, index: int) -> Tensor:
        if index in self.damaged:
            raise DamagedFile(f"row {index}", "not a number")
        return self.values[index]

    def to(self, device: torch.device) -> Rows:
        return self


@pytest.fixture(autouse=True)
def operations(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()  # all are known before two are added
    monkeypatch.setitem(registry._OPERATIONS, "rows/noise", Noise)
    monkeypatch.setitem(registry._OPERATIONS, "rows/first", First)


def data_of(where: str = "auto", workers: int = 0, once: bool = False, **source: object) -> DataModule:
    augmentation = RowViews(VIEWS, {"ops": []}, where, once)
    made = Splits(Rows(**source), Rows())  # type: ignore[arg-type]
    return DataModule(lambda root, download: made, 8, augmentation, workers=workers)


def test_memory_workers_and_whole_views_of_workers_are_the_same_numbers() -> None:
    first = batches(data_of(), 2)
    assert [view.shape for view in first[0].views] == [(8, 6), (8, 6), (8, 3)]
    assert not torch.equal(first[0].views[0], first[0].views[1])
    for where, workers in (("auto", 0), ("auto", 1), ("worker", 1)):
        for a, b in zip(first, batches(data_of(where, workers, in_memory=False), 2), strict=True):
            assert torch.equal(a.index, b.index) and torch.equal(a.label, b.label)
            assert all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


@pytest.mark.filterwarnings("ignore:damaged files")
def test_views_may_be_made_once_for_all_epochs() -> None:
    for once, where, workers in ((True, "auto", 0), (True, "worker", 1), (False, "auto", 0)):
        data = data_of(where, workers, once, in_memory=workers == 0)
        loader = data.train_dataloader()
        epochs = []
        for _ in range(2):
            made = [data.on_after_batch_transfer(raw, 0) for raw in loader]
            order = torch.cat([batch.index for batch in made])
            epochs.append((order, torch.cat([batch.views[1] for batch in made])[order.argsort()]))
        assert not torch.equal(epochs[0][0], epochs[1][0]) and torch.equal(epochs[0][1], epochs[1][1]) == once


def test_evaluation_sees_every_row_once_and_a_damaged_one_has_no_label() -> None:
    stored, label = Rows().values, [i % 2 for i in range(24)]
    for data, rows, known in (
        (data_of(), list(range(24)), label),
        (data_of(in_memory=False, damaged=(5,)), [*range(5), 6, *range(6, 24)], [*label[:5], -1, *label[6:]]),
    ):
        views, labels, index = zip(*data.train_eval_loader(), strict=True)
        assert torch.equal(torch.cat(views), stored[rows]) and torch.cat(index).tolist() == list(range(24))
        assert torch.cat(labels).tolist() == known  # type: ignore[arg-type]


def test_what_the_data_say_of_themselves() -> None:
    data = data_of(in_memory=False)
    assert (data.info.columns, data.info.samples, data.tensor_views) == (6, 24, True)
    words = "decoding in this process, the rest of the views in batches on cpu (auto: views are made in batches)"
    assert data.describe("cpu") == words
    found, features = look(Passed(), data)
    assert features.features.shape == (24, 6) and found.images == 24 and 0 < found.alignment < 1


class Passed(nn.Module):
    def embed(self, view: Tensor) -> Tensor:
        return view


def test_an_operation_that_does_not_fit_the_samples_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match="augmentation.views: rows/first: got 6 columns, the source says 5"):
        data_of(columns=5)
    with pytest.raises(ConfigError, match=r"(?s)3 of 24 samples cannot be read.*row 0: not a number"):
        data_of(in_memory=False, damaged=(0, 1, 2))
    with pytest.raises(ConfigError, match="augmentation is settings without _target_, which is not for the samples"):
        DataModule(lambda **_: Splits(Rows(), None), 8, {"views": VIEWS, "eval": {"ops": []}})
