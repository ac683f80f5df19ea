"""Recordings: files of all kinds, spoken digits, folders, tables, and the batches that are made of them."""

from __future__ import annotations

import wave
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_zoo import config
from ssl_zoo.augmentations.audio.views import AudioViews
from ssl_zoo.augmentations.audio.waves import Waves
from ssl_zoo.data.audio import decode
from ssl_zoo.data.audio.decode import Reader
from ssl_zoo.data.audio.folder import audio_folder
from ssl_zoo.data.audio.fsdd import fsdd
from ssl_zoo.data.audio.source import Recordings
from ssl_zoo.data.audio.synthetic import synthetic_audio
from ssl_zoo.data.datamodule import DataModule
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError
from ssl_zoo.knn import knn_top1
from tests.data.helpers import batches

RATE = 8000
VIEWS: list[Any] = [
    {"count": 2, "ops": [{"audio/crop": {"window": 200}}, "audio/standardize"]},
    {"ops": [{"audio/pitch": {"p": 0.5}}, {"audio/crop": {"window": 100, "fill": "loop"}}], "kind": "local"},
]
EVAL: dict[str, Any] = {"ops": [{"audio/crop": {"window": 200, "place": "middle"}}]}


def write(path: Path, values: np.ndarray, rate: int = RATE) -> Path:
    """A WAV file of 16 bits, ``[L]`` or ``[L, C]`` in [-1, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((values * 32767).astype("<i2").tobytes())
    return path


def tone(length: int, pitch: float = 400.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(length) / rate)


def tree(root: Path, parts: tuple[str, ...] = ("train", "val"), files: int = 3) -> Path:
    for part in parts:
        for name in ("high", "low"):
            for i in range(files):
                write(root / part / name / f"{i}.wav", tone(150 + 60 * i, 400 if name == "high" else 200))
    return root


def data_of(source: Any, where: str = "auto", **options: Any) -> DataModule:
    return DataModule(source, 4, AudioViews(VIEWS, EVAL, where=where), workers=0, **options)


def test_recordings_of_unequal_length_are_one_batch() -> None:
    waves = Waves.of([torch.ones(1, 3), 2 * torch.ones(1, 5)])
    assert waves.values.shape == (2, 1, 5) and waves.lengths.tolist() == [3, 5]
    assert waves.values[0, 0].tolist() == [1, 1, 1, 0, 0]
    both = Waves.concat([waves, Waves.of([torch.ones(1, 7)])])
    assert both.values.shape == (3, 1, 7) and both.select(torch.tensor([2, 0])).lengths.tolist() == [7, 3]


def test_memory_gives_the_same_batches_as_files_and_workers(tmp_path: Path) -> None:
    root = str(tree(tmp_path))
    first = batches(data_of(partial(audio_folder, memory=True), root=root), 2)
    assert [view.shape for view in first[0].views] == [(4, 1, 200), (4, 1, 200), (4, 1, 100)]
    assert not torch.equal(first[0].views[0], first[0].views[1])
    for where in ("auto", "worker"):
        for a, b in zip(first, batches(data_of(partial(audio_folder, memory=False), where, root=root), 2), strict=True):
            assert torch.equal(a.index, b.index)
            for x, y in zip(a.views, b.views, strict=True):
                torch.testing.assert_close(x, y)
    made = [data_of(partial(audio_folder, memory=memory), root=root).val_loader() for memory in (True, False)]
    assert torch.equal(*(next(iter(loader))[0] for loader in made if loader is not None))


def test_a_part_of_them_moves_and_keeps_its_samples() -> None:
    source = Recordings([torch.arange(3.0)[None], torch.arange(5.0)[None]], torch.tensor([0, 1]), ["a", "b"], RATE)
    waves = source.to(torch.device("cpu")).fetch(torch.tensor([1, 0]))
    assert waves.values[0, 0].tolist() == [0, 1, 2, 3, 4] and waves.values[1, 0].tolist() == [0, 1, 2, 0, 0]
    assert source.load(1)[0].tolist() == [0, 1, 2, 3, 4] and source.facts == {"sample_rate": RATE, "channels": 1}


def digits(root: Path) -> Path:
    for digit in range(2):
        for speaker in ("ann", "bob"):
            for index in (0, 4, 5, 12):
                write(root / "recordings" / f"{digit}_{speaker}_{index}.wav", tone(100 + index, 200 + 100 * digit))
    return root


def test_digits_are_split_and_labelled_as_their_readme_says(tmp_path: Path) -> None:
    train, val = fsdd(root=str(digits(tmp_path)))
    assert (len(train), len(val), train.classes) == (8, 8, ["0", "1"])  # type: ignore[arg-type]
    assert train.labels is not None and train.labels.tolist() == [0] * 4 + [1] * 4
    speakers = fsdd("speaker", root=str(tmp_path / "recordings")).train
    assert speakers.classes == ["ann", "bob"] and speakers.labels.tolist() == [0, 0, 1, 1] * 2  # type: ignore[union-attr]
    assert train.fingerprint() != speakers.fingerprint()


@pytest.mark.parametrize(
    ("label", "root", "message"),
    [
        ("digit", "none", "found 0 recordings of digits; wanted the folder of"),
        ("word", ".", "data.source.label=word: there are: digit, speaker"),
        ("digit", None, "data.root=None and nothing is downloaded: wanted the folder of"),
    ],
)
def test_digits_that_are_not_there(tmp_path: Path, label: Any, root: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fsdd(label, root=None if root is None else str(tmp_path / root))


def test_damaged_digits_are_left_out_counted_and_named(tmp_path: Path) -> None:
    root = digits(tmp_path)
    (root / "recordings/0_ann_5.wav").write_bytes(b"RIFF")
    write(root / "recordings/1_bob_12.wav", tone(0))
    train = fsdd(root=str(root)).train
    (told,) = train.decisions  # type: ignore[attr-defined]
    assert len(train) == 6 and train.labels is not None and train.labels.tolist() == [0] * 3 + [1] * 3
    assert told.startswith("left out: 2 of 8 damaged files (") and "1_bob_12.wav: it holds no sound" in told
    with pytest.raises(ConfigError, match="2 of 8 sound files cannot be read, and data.source.max_damaged allows 1"):
        fsdd(root=str(root), max_damaged=1)


def test_a_folder_says_classes_and_parts(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "train/notes.txt").write_text("no sound")
    train, val = audio_folder(root=str(root))
    assert train.classes == ["high", "low"] and train.labels is not None and val is not None
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(val) == 6
    told = "training set: 6 files of train/; validation set: 6 of val/"
    assert train.decisions == [told]  # type: ignore[attr-defined]
    assert audio_folder("none", root=str(root)).train.labels is None
    assert audio_folder(root=str(root / "train")).val is None
    files = audio_folder(root=str(root), memory=False).train
    before = files.fingerprint()
    write(root / "train/low/2.wav", tone(999))
    assert audio_folder(root=str(root), memory=False).train.fingerprint() != before


def test_a_table_says_labels_and_splits(tmp_path: Path) -> None:
    tree(tmp_path, ("all",), 2)
    rows = ["all/high/0.wav,yes,train", "all/high/1.wav,yes,val", "all/low/0.wav,no,train", "all/low/1.wav,no,val"]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows))
    train, val = audio_folder(root=str(tmp_path / "list.csv"))
    assert train.classes == ["no", "yes"] and train.labels is not None and train.labels.tolist() == [1, 0]
    assert val is not None and val.labels is not None and val.labels.tolist() == [1, 0]


def test_another_rate_names_the_file_or_is_resampled(tmp_path: Path) -> None:
    root = tree(tmp_path)
    write(root / "val/low/1.wav", tone(3200, 400, 16000), 16000)
    with pytest.raises(ConfigError, match=r"val/low/1.wav: it has 16000 Hz and the data 8000; data.source.resample=tr"):
        audio_folder(root=str(root))
    val = audio_folder(root=str(root), resample=True).val
    assert val is not None
    found = val.load(4)[0]
    assert len(found) == 1600
    np.testing.assert_allclose(found[200:1400], tone(1600)[200:1400], atol=2e-3)


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ({"a.txt": None}, {}, r"no sound file in .* \(found 1 .txt\); read are .wav, .flac"),
        ({"a.wav": 50}, {"labels": "folder"}, "labels=folder: .*a.wav lies in no folder of a class"),
        (
            {"train/a/a.wav": 50, "train/b/b.wav": 50, "val/c/c.wav": 50},
            {},
            "val/c/c.wav: its class 'c' is none of",
        ),
        ({"a.wav": 0}, {}, r"(?s)1 of 1 sound files cannot be read.*a.wav: it holds no sound"),
    ],
)
def test_folders_that_make_no_sense(tmp_path: Path, made: dict[str, Any], options: Any, message: str) -> None:
    for name, length in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch() if length is None else write(tmp_path / name, tone(length))
    with pytest.raises(ConfigError, match=message):
        audio_folder(root=str(tmp_path), **options)


def test_a_damaged_file_among_workers_is_replaced(tmp_path: Path) -> None:
    root = tree(tmp_path)
    write(root / "train/high/1.wav", tone(0))
    source = audio_folder(root=str(root), memory=False).train
    with pytest.raises(DamagedFile, match="high/1.wav: it holds no sound"):
        source.load(1)
    with pytest.warns(UserWarning, match="damaged files: 1 of 6, the next readable samples take their places"):
        views, labels, _ = next(iter(data_of(partial(audio_folder, memory=False), root=str(root)).train_eval_loader()))
        data = data_of(partial(audio_folder, memory=False), root=str(root)).train_eval_loader()
        found = [labels for _, labels, _ in data]
    assert views.shape == (6, 1, 200) and labels.tolist() == [0, -1, 0, 1, 1, 1] and len(found) == 1


@pytest.mark.parametrize(
    ("kind", "scale"), [("uint8", 1 / 64), ("int16", 1e-4), ("int32", 1e-6), ("float32", 1e-6), ("float64", 1e-6)]
)
def test_numbers_of_all_types_are_of_one_scale(tmp_path: Path, kind: str, scale: float) -> None:
    from scipy.io import wavfile

    x = tone(300)
    whole = {"uint8": (x * 127 + 128).round(), "int16": x * 32767, "int32": x * 2147483647}
    wavfile.write(tmp_path / "a.wav", RATE, whole.get(kind, x).astype(kind))
    np.testing.assert_allclose(Reader(RATE)(str(tmp_path / "a.wav"))[0], x, atol=scale)


def test_channels_are_mixed_or_must_be_as_many(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.wav", np.stack([tone(50), np.zeros(50)], 1)))
    assert torch.allclose(Reader(RATE)(path)[0], torch.from_numpy(tone(50) / 2).float(), atol=1e-4)
    assert Reader(RATE, 2)(path).shape == (2, 50)
    with pytest.raises(DamagedFile, match="it has 2 channels, and data.source.channels=3"):
        Reader(RATE, 3)(path)


def test_what_is_no_number_is_damaged(tmp_path: Path) -> None:
    from scipy.io import wavfile

    wavfile.write(tmp_path / "a.wav", RATE, np.array([0, np.nan], np.float32))
    with pytest.raises(DamagedFile, match="numbers that are not finite"):
        Reader(RATE)(str(tmp_path / "a.wav"))


def test_compressed_files_take_a_library_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(300), RATE)
    np.testing.assert_allclose(Reader(RATE)(str(path))[0], tone(300), atol=1e-4)
    assert decode.rate_of(str(path)) == RATE
    (tmp_path / "b.flac").write_bytes(b"no sound")
    with pytest.raises(DamagedFile, match="b.flac"):
        Reader(RATE)(str(tmp_path / "b.flac"))
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"reading .flac files takes soundfile: pip install 'ssl_zoo\[audio\]'"):
        Reader(RATE)(str(path))


def test_computed_tones_can_be_told_apart_by_their_spectra() -> None:
    train, val = synthetic_audio(128, 32)
    again = synthetic_audio(128, 32).train
    assert torch.equal(train.load(5), again.load(5)) and train.fingerprint() == again.fingerprint()
    assert val is not None and train.labels is not None and val.labels is not None
    features = [part.baseline(part.fetch(torch.arange(len(part))).values) for part in (train, val)]  # type: ignore
    assert features[0].shape == (128, 80)
    assert knn_top1(features[1], val.labels, features[0], train.labels, 4, k=5) > 80


def test_methods_take_the_views_and_the_network_that_suit_them() -> None:
    wanted = {"simclr": ("audio_resnet8", 2), "cpc": ("cpc_encoder", 1)}
    for method, (network, views) in wanted.items():
        cfg = config.load([f"method={method}", "data=synthetic_audio"])
        assert cfg.backbone._target_.endswith(network) and cfg.augmentation.views[0].count == views
    assert [next(iter(op)) if not isinstance(op, str) else op for op in cfg.augmentation.views[0].ops] == [
        "audio/crop", "audio/standardize",
    ]  # fmt: skip
