"""Time series from the layouts of archives and from own folders: numbers, and the sentence for each wrong file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_zoo.augmentations.series.views import SeriesViews
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.series.archives import ucr, uea
from ssl_zoo.data.series.folder import series_folder
from ssl_zoo.data.series.source import Series
from ssl_zoo.data.series.standardise import UCR_RAW, statistics
from ssl_zoo.data.series.synthetic import synthetic_series
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.baselines import Untrained
from ssl_zoo.evaluation.linear import linear_probe
from ssl_zoo.features import extract_on
from tests.data.helpers import batches

HEAD = "#a set\n@problemName X\n@univariate false\n@dimensions 2\n@equalLength false\n@classLabel true up down\n@data\n"
TRAIN = HEAD + "1,2,3:4,5,6:up\n1,?:2,3:down\n"
NOISE = [{"ops": [{"series/jitter": {"sigma": 1.0}}]}]


def data_of(once: bool = False, where: str = "auto") -> DataModule:
    return DataModule(synthetic_series, 32, SeriesViews(NOISE, {"ops": []}, where, once), workers=0)


def put(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def archive(root: Path, train: str = TRAIN, test: str = HEAD + "0,0,0,0:1,1,1,1:up\n", suffix: str = ".ts") -> str:
    put(root, f"X/X_TRAIN{suffix}", train)
    put(root, f"X/X_TEST{suffix}", test)
    return str(root)


def test_uea_pads_to_the_longest_of_both_parts_and_standardises_channels_by_the_training_part(tmp_path: Path) -> None:
    train, val = uea("X", root=archive(tmp_path))
    assert val is not None and train.classes == ["down", "up"] and train.labels.tolist() == [1, 0]
    assert train.fetch(torch.tensor([0, 1])).shape == (2, 4, 2)
    first, second = np.array([1.0, 2, 3, 1]), np.array([4.0, 5, 6, 2, 3])
    want = (1 - first.mean()) / first.std()
    assert train.load(0)[0, 0].item() == pytest.approx(want) and train.load(0)[3].isnan().all()
    assert train.load(1).isnan().tolist() == [[False, False], [True, False], [True, True], [True, True]]
    assert val.load(0)[2].tolist() == pytest.approx([-first.mean() / first.std(), (1 - second.mean()) / second.std()])
    facts = train.facts
    assert (facts["length"], facts["channels"]) == (4, 2)
    assert facts["channel_means"] == pytest.approx((first.mean(), second.mean()))
    assert train.decisions == [
        "series: each channel is standardised by its mean and deviation in the training set "
        "(auto: as TS2Vec's authors)",
        "series of 2 to 3 steps are filled up with missing steps to 4",
    ]


def test_ucr_takes_series_as_they_are_but_for_those_that_the_authors_standardise(tmp_path: Path) -> None:
    root = archive(tmp_path, "2\t1.0\t2.0\n10\t3.0\tNaN\n", "2\t5\t6\n", ".tsv")
    train, val = ucr("X", root=root)
    assert train.classes == ["2", "10"] and train.load(0).flatten().tolist() == [1, 2]  # numbers in their order
    assert "auto: X is not among the sets that TS2Vec's authors standardise" in train.decisions[0]
    put(tmp_path, "Rock/Rock_TRAIN.tsv", "1\t1\t2\n1\t3\tNaN\n")
    put(tmp_path, "Rock/Rock_TEST.tsv", "1\t2\t2\n")
    train, val = ucr("Rock", root=root)
    assert val is not None and len(UCR_RAW) == 34
    assert train.load(0)[0].item() == pytest.approx(-1 / np.std([1, 2, 3])) and val.load(0).tolist() == [[0], [0]]
    assert ucr("Rock", normalize="none", root=root).train.load(0).flatten().tolist() == [1, 2]


def test_a_channel_that_never_changes_is_not_divided_by_its_rounding() -> None:
    values = torch.full((3, 5, 1), 0.1)
    found = statistics(values, "channel")
    assert found is not None and found[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (HEAD + "1,2:3:up\n", r"X_TRAIN.ts line 8: channels of 1 to 2 values, wanted equally many in each"),
        (HEAD + "1,2:3,4:up\n1,2:down\n", r"X_TRAIN.ts line 9: 1 channels, wanted 2 as in the lines before"),
        (HEAD + "1,2:3,x:up\n", r"X_TRAIN.ts line 8, channel 2: value 2 is 'x', wanted a number or NaN"),
        (HEAD + "1,inf:3,4:up\n", r"line 8, channel 1: value 2 is infinite"),
        (HEAD, "X_TRAIN.ts: has no series"),
        (HEAD + "?,?:?,?:up\n", "X_TRAIN.ts: series 1 has no values; take it out"),
        ("1,2:3,4:up\n", "X_TRAIN.ts: has no line @data"),
        (HEAD.replace("@data", "@timeStamps true\n@data") + "1:2:up\n", "has time stamps, which are not read"),
        (HEAD.replace("@data", "@targetlabel true\n@data") + "1:2:3\n", "has numbers for labels"),
        (HEAD + "1,2:3,4:left\n", "X_TEST: series 1 has the label 'up', which no training series has"),
    ],
)
def test_what_cannot_be_read_of_a_file_is_a_sentence(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        uea("X", root=archive(tmp_path, train))


def test_ragged_lines_and_missing_files_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"X_TRAIN.tsv line 2: 1 values, wanted 2 as in the first one"):
        ucr("X", root=archive(tmp_path / "a", "1\t1\t2\n1\t2\n", "1\t1\t2\n", ".tsv"))
    with pytest.raises(ConfigError, match="data.root is not set: the folder that holds X/X_TRAIN.tsv"):
        ucr("X")
    with pytest.raises(ConfigError, match=r"data.source.name=Y: data.root=.* has no such data set: there are: X"):
        ucr("Y", root=str(tmp_path / "a"))
    (tmp_path / "a/X/X_TEST.tsv").unlink()
    with pytest.raises(ConfigError, match=r"wanted X/X_TRAIN.tsv and X_TEST.tsv, or both in .ts; one of them is not"):
        ucr("X", root=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="has no folder of a data set"):
        uea("X", root=str(tmp_path / "nothing"))


def test_a_folder_of_arrays_with_words_for_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(3, 2, (6, 5, 2))
    values[0, 3:] = np.nan
    np.save(tmp_path / "train.npy", values)
    put(tmp_path, "train_labels.txt", "b\na\nb\na\nb\na\n")
    train, val = series_folder(root=str(tmp_path))
    assert val is None and train.classes == ["a", "b"] and train.labels.tolist() == [1, 0, 1, 0, 1, 0]
    flat = train.values.flatten(0, 1)
    assert flat.nanmean(0).abs().max() < 1e-6 and train.load(0)[3:].isnan().all()
    np.save(tmp_path / "test.npy", values[:2, :, 0])
    with pytest.raises(ConfigError, match="test: series of 1 channels, and the training series have 2|one has labels"):
        series_folder(root=str(tmp_path))
    put(tmp_path, "train_labels.txt", "b\n")
    with pytest.raises(ConfigError, match=r"train_labels.txt: 1 labels, and train.npy has 6 series"):
        series_folder(root=str(tmp_path))
    values[4, 0] = np.inf
    np.save(tmp_path / "train.npy", values)
    with pytest.raises(ConfigError, match=r"train.npy: row 4 is infinite somewhere"):
        series_folder(root=str(tmp_path))


def test_a_folder_of_tables_with_and_without_labels(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "x,y,kind\n1,2,on\n3,4,off\n")
    train, _ = series_folder(label="last", header=True, normalize="none", root=str(tmp_path))
    assert train.classes == ["off", "on"] and train.values.flatten().tolist() == [1, 2, 3, 4]
    put(tmp_path, "train.csv", "1,2\n3,4\n")
    assert series_folder(normalize="none", root=str(tmp_path)).train.labels is None
    put(tmp_path, "train.tsv", "1\t2\n")
    with pytest.raises(ConfigError, match="train.csv and train.tsv; keep one of them"):
        series_folder(root=str(tmp_path))
    with pytest.raises(ConfigError, match=r"no training series; wanted train.npy"):
        series_folder(root=str(tmp_path / "x"))
    with pytest.raises(ConfigError, match=r"series are torch.float32 \[3, 4\], wanted floats \[N, T, C\]"):
        Series(torch.zeros(3, 4))


def test_the_baseline_counts_what_is_there() -> None:
    nan = float("nan")
    view = torch.tensor([[[1.0], [3.0], [nan], [nan]]])
    got = Series(view).baseline(view)
    assert got.tolist() == [[2.0, 1.0, 1.0, 3.0, 1.0, 0.5]]  # mean, deviation, least, most, mean step, share


def test_drawn_series_are_learnable_and_always_the_same() -> None:
    train, val = synthetic_series(shortest=40)
    again = synthetic_series(shortest=40).train
    assert val is not None and torch.equal(train.values.nan_to_num(9), again.values.nan_to_num(9))
    lengths = (~train.values.isnan().all(2)).sum(1)
    assert lengths.min() >= 40 and lengths.max() <= 64 and len(set(lengths.tolist())) > 5
    data = data_of()
    known, asked = (
        extract_on(Untrained(train.baseline), loader, "cpu") for loader in (data.train_eval_loader(), data.val_loader())
    )
    assert linear_probe(*known[:2], *asked[:2])["top1"] > 50


def test_views_made_once_belong_to_the_series_whatever_the_epoch_and_the_process() -> None:
    for once in (True, False):
        data = data_of(once)
        epochs = [{int(i): view for batch in batches(data) for i, view in zip(batch.index, batch.views[0], strict=True)}
                  for _ in range(2)]  # fmt: skip
        same = [torch.equal(epochs[0][i], epochs[1][i]) for i in epochs[0].keys() & epochs[1].keys()]
        assert len(same) == 256 and all(same) == once == any(same)
    device, worker = (batches(data_of(True, where), 1)[0] for where in ("device", "worker"))
    assert torch.equal(device.views[0], worker.views[0])
