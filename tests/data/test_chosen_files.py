"""A list of the training files within a folder."""

from __future__ import annotations

import pytest

from ssl_zoo import config
from ssl_zoo.data.image.folder import folder
from ssl_zoo.errors import ConfigError
from tests.data.helpers import pictures
from tests.data.test_folder import labelled


def listed(root, text):
    (root / "list.txt").write_text(text)
    return folder(str(root), 3, 16, cache=False, files=str(root / "list.txt"))


def test_a_list_of_paths_and_labels_chooses_files(tmp_path):
    whole = folder(str(labelled(tmp_path)), 3, 16, cache=False)
    names = [whole.train.path(i) for i in (9, 0, 3)]
    text = "".join(f"{name.removeprefix(f'{tmp_path}/')} {i}\n" for i, name in enumerate(names))  # as ImageNet-LT's
    train, val = listed(tmp_path, text + "\n")
    assert [train.path(i) for i in range(len(train))] == sorted(names)
    assert train.labels.tolist() == [int(whole.train.labels[i]) for i in (0, 3, 9)]
    assert len(val) == len(whole.val)
    assert listed(tmp_path, text.replace("train/", "")).train.fingerprint() == train.fingerprint()
    assert whole.train.fingerprint() != train.fingerprint()


def test_classes_that_are_not_in_the_list_are_not_validated(tmp_path):
    for split in ("train", "val"):
        pictures(labelled(tmp_path) / split / "owl", 3)
    train, val = listed(tmp_path, "cat/000.png\nowl/000.png")
    assert train.classes == val.classes == ["cat", "owl"] and len(val) == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train/b/x.png 0", "line 1 names 'train/b/x.png 0', which is not below .*train; set data.root"),
        ("\n", "it names no file; set it to null"),
    ],
)
def test_a_list_that_fits_no_folder_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        listed(labelled(tmp_path), text)


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.source.files=none.txt: cannot be read \(No such file or directory\)"):
        folder(str(labelled(tmp_path)), 3, 16, cache=False, files="none.txt")


def test_imagenet_lt_is_imagenet_by_a_list_beside_it():
    cfg = config.load(["data=imagenet_lt", "data.root=/images"])
    assert cfg.data.source.files == "/images/ImageNet_LT_train.txt"
    assert cfg.data.source._target_ == config.load(["data=imagenet"]).data.source._target_
    assert cfg.data.image_size == 224
