import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_zoo.data.image.decode import Reader, reader
from ssl_zoo.data.image.folder import folder
from ssl_zoo.data.source import DamagedFile
from ssl_zoo.errors import ConfigError
from tests.data.helpers import batches, files, pictures

BAD = {"cut.jpg", "text.png", "empty.webp"}


def labelled(root: Path, n: int = 6) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            pictures(root / split / name, n)
    return root


def oddities(root: Path) -> None:
    """Every mode that must work, and three files that cannot."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(1)

    def noise(*shape: int) -> np.ndarray:
        return rng.randint(0, 256, shape, dtype=np.uint8)

    Image.fromarray(noise(30, 40)).save(root / "grey.png")
    Image.fromarray(noise(30, 40, 4), "RGBA").save(root / "alpha.png")
    Image.fromarray(noise(30, 40, 4), "CMYK").save(root / "cmyk.jpg")
    Image.fromarray(rng.randint(0, 65536, (30, 40)).astype(np.uint16)).save(root / "deep.png")
    Image.fromarray(noise(30, 40, 3)).convert("P").save(root / "palette.gif")
    Image.fromarray(noise(1, 1, 3)).save(root / "one.png")
    Image.fromarray(noise(1, 300, 3)).save(root / "strip.bmp")
    Image.fromarray(noise(60, 60, 3)).save(root / "whole.JPEG")
    whole = (root / "whole.JPEG").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("not a picture")
    (root / "empty.webp").write_bytes(b"")


@pytest.fixture()
def odd(tmp_path):
    oddities(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_mode_is_decoded_to_the_wanted_channels(odd):
    for path in sorted(odd.iterdir()):
        if path.name not in BAD:
            for channels in (1, 3):
                image = reader([str(path)], channels)(str(path))
                kind = torch.uint16 if path.name == "deep.png" else torch.uint8
                assert (image.dtype, image.shape[0], image.is_contiguous()) == (kind, channels, True)


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    read = reader([str(tmp_path / "deep.png")], 1)
    assert read(str(tmp_path / "deep.png")).tolist() == [[values[0].tolist()]] and read.range.white == 65535
    assert reader([str(tmp_path / "deep.png")], 3)(str(tmp_path / "deep.png"))[:, 0, 2].tolist() == [32896] * 3


def test_cmyk_keeps_its_colour(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red, green, blue = Reader(3)(str(tmp_path / "red.jpg"))[:, 8, 8].tolist()
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("name", sorted(BAD))
def test_damaged_files_have_one_kind_of_error(odd, name):
    with pytest.raises(DamagedFile) as error:
        Reader(3)(str(odd / name))
    assert error.value.path == str(odd / name) and len(error.value.reason) > 5


def test_labels_come_from_the_first_sub_folder(tmp_path):
    labelled(tmp_path)
    pictures(tmp_path / "train" / "cat" / "deeper", 1)
    train, val = folder(str(tmp_path), 3, 16, cache=False)
    assert (train.classes, train.labels.tolist()) == (["cat", "dog"], [0] * 7 + [1] * 6)
    assert val.labels.tolist() == [0] * 6 + [1] * 6
    assert train.path(0).endswith(os.path.join("train", "cat", "000.png"))
    assert {Path(train.path(i)).name for i in range(13)} == {f"{i:03d}.png" for i in range(6)}


def test_an_unlabelled_tree_has_no_validation_set(tmp_path):
    pictures(tmp_path / "a", 2)
    pictures(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("not an image")
    pictures(tmp_path / ".hidden", 2)
    train, val = folder(str(tmp_path), 3, 16, cache=False)
    assert (len(train), train.labels, train.classes, val) == (4, None, None, None)
    data = files(tmp_path, batch_size=4)
    assert data.info.classes is None and data.val_loader() is None and data.train_labels is None
    assert batches(data)[0].label is None


def test_labels_none_ignores_class_folders(tmp_path):
    train, val = folder(str(labelled(tmp_path)), 3, 16, labels="none", cache=False)
    assert train.labels is None and val is None and len(train) == 12


def test_val_fraction_makes_a_validation_set_from_class_folders(tmp_path):
    labelled(tmp_path)
    data = files(tmp_path / "train", batch_size=4, val_fraction=0.25)
    assert data.info.samples == 9 and data.val_loader().samples == 3
    assert [label for _, labels, _ in data.val_loader() for label in labels.tolist()] == data.val.labels.tolist()


def test_a_link_up_the_tree_is_followed_once(tmp_path):
    pictures(tmp_path / "a", 2)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert len(folder(str(tmp_path), 3, 16, cache=False).train) == 2


@pytest.mark.parametrize(
    ("prepare", "options", "words"),
    [
        (lambda root: None, {}, ["no image below", ".jpg .png .tif .npy and", "in all sub-folders"]),
        (lambda root: pictures(root, 1), {"labels": "folder"}, ["000.png lies in no class folder", "labels=none"]),
        (lambda root: pictures(root, 1), {"labels": "yes"}, ["data.source.labels=yes: wanted auto, folder or none"]),
        (lambda root: pictures(root, 1), {"download": True}, ["data.download=true", "set data.root"]),
        (lambda root: pictures(labelled(root) / "val" / "bird", 1), {}, ["no class 'bird'", "cat, dog"]),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, prepare, options, words):
    prepare(tmp_path)
    with pytest.raises(ConfigError) as error:
        folder(str(tmp_path), 3, 16, cache=False, **options)
    assert all(word in str(error.value) for word in words), error.value


def test_missing_root(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        folder(str(tmp_path / "absent"), 3, 16)
    with pytest.raises(ConfigError, match="data.root is not set"):
        folder(None, 3, 16)


def test_the_list_of_files_is_kept_until_a_folder_changes(tmp_path, monkeypatch):
    pictures(tmp_path / "data" / "a", 2)
    options = {"channels": 3, "image_size": 16, "cache": str(tmp_path / "kept")}
    first = folder(str(tmp_path / "data"), **options).train
    (kept,) = (tmp_path / "kept").iterdir()
    assert json.loads(kept.read_text())["paths"] == [os.path.join("a", "000.png"), os.path.join("a", "001.png")]
    monkeypatch.setattr("ssl_zoo.data.image.listing._walk", lambda *where: pytest.fail("scanned again"))
    assert folder(str(tmp_path / "data"), **options).train.path(1) == first.path(1)
    monkeypatch.undo()
    pictures(tmp_path / "data" / "a" / "b", 1)
    assert len(folder(str(tmp_path / "data"), **options).train) == 3
    kept.write_text("{half")
    assert len(folder(str(tmp_path / "data"), **options).train) == 3


def test_a_list_that_cannot_be_kept_is_no_obstacle(tmp_path):
    pictures(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot keep the list of images"):
        assert len(folder(str(tmp_path / "data"), 3, 16, cache=str(tmp_path / "file" / "kept")).train) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["device", "worker"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_folder_trains_and_tells_of_its_files_once(odd, workers, where):
    data = files(odd, batch_size=11, workers=workers, where=where)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        epochs = [batches(data), batches(data)]
        for _ in data.train_eval_loader():
            pass
        data.teardown("fit")
    (told,) = [str(w.message) for w in caught if "damaged file" in str(w.message)]
    assert told.startswith("damaged files: 3 of 11, the next readable samples take their places: ")
    assert {name for name in BAD if name in told} == BAD
    (batch,) = epochs[0]
    assert all(view.shape == (11, 3, 16, 16) and bool(view.isfinite().all()) for view in batch.views)
    # The next readable sample, in the order of paths, takes the place of a damaged one.
    names = [Path(data.train.source.path(i)).name for i in batch.index.tolist()]
    assert not BAD & set(names) and names.count("deep.png") == 2  # cut.jpg -> deep.png


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:damaged file")
def test_evaluation_shows_every_sample_once_and_judges_no_damaged_one(tmp_path):
    oddities(tmp_path / "odd")
    pictures(tmp_path / "plain", 2)
    data = files(tmp_path, batch_size=4)
    rows = [(index, labels) for _, labels, index in data.train_eval_loader()]
    found = [pair for row in rows for pair in torch.stack(row, dim=1).tolist()]
    assert [i for i, _ in found] == list(range(13))
    unlabelled = {Path(data.train.source.path(i)).name for i, label in found if label == -1}
    assert unlabelled == BAD


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:damaged file")
def test_too_many_damaged_files_end_the_run_with_their_names(tmp_path, workers):
    for path in pictures(tmp_path, 12)[:5]:
        path.write_text("broken")
    data = files(tmp_path, batch_size=12, workers=workers, source={"max_damaged": 2})
    with pytest.raises(ConfigError) as error:
        batches(data)
    data.teardown("fit")
    words = ["of 12 samples cannot be read", "data.source.max_damaged allows 2", ".png"]
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.filterwarnings("ignore:damaged file")
def test_a_folder_without_one_readable_image(tmp_path):
    for path in pictures(tmp_path, 3):
        path.write_text("broken")
    with pytest.raises(ConfigError, match="3 of 3 samples cannot be read"):
        batches(files(tmp_path, batch_size=2))
