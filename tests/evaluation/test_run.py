"""The evaluate command: which checkpoint, which data, what is written; with stand-ins for data and network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from ssl_zoo import config
from ssl_zoo.data.image.source import ImageSource
from ssl_zoo.data.splits import balanced_rows
from ssl_zoo.distributed import rank
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation import run as running
from ssl_zoo.evaluation.baselines import Untrained, compare
from ssl_zoo.evaluation.run import data_config, data_name, pick_device, run, source_words
from ssl_zoo.features import extract
from ssl_zoo.knn import knn_top1
from ssl_zoo.runs import find

TRAINED = {
    "seed": 3,
    "scale": {"batch_size": 64},
    "augmentation": {"eval": {"ops": []}, "normalize": None},
    "method": {"_target_": "ssl_zoo.methods.byol.BYOL"},
    "backbone": {"_target_": "ssl_zoo.backbones.image.tiny.resnet8"},
    "data": {
        "_target_": "ssl_zoo.data.image.datamodule.ImageData",
        "source": {"_target_": "ssl_zoo.data.image.arrays.digits"},
        "root": None,
        "image_size": 8,
        "channels": 3,
        "batch_size": 64,
    },
}


class Method(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.BatchNorm1d(6))
        self.calls = 0

    def embed(self, view):
        self.calls += 1
        return self.net(view)


class Data:
    """200 training and 60 test images of three classes that differ in brightness."""

    def __init__(self, labels=True, validation=True):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(3, (260,), generator=generator)
        noise = torch.randn(260, 3, 8, 8, generator=generator)
        self.images = 2 * noise + torch.eye(3)[self.labels][:, :, None, None]
        self.info = SimpleNamespace(classes=3 if labels else None)
        self.train_labels = self.labels[:200] if labels else None
        self.validation = validation

    def batches(self, start, stop):
        rows = torch.arange(start, stop)
        return [(self.images[part], self.labels[part], part - start) for part in rows.split(50)]

    def train_eval_loader(self, rows):
        assert rows.tolist() == list(range(200))
        return self.batches(0, 200)

    def val_loader(self):
        return self.batches(200, 260) if self.validation else None


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run folder whose checkpoint reads as the stand-ins."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    stand = SimpleNamespace(folder=folder, method=Method(), data=Data(), asked=None)
    checkpoint = {"epoch": 2, "global_step": 9, "ssl_zoo": {"hash": "abc"}}
    loaded = (stand.method, OmegaConf.create(TRAINED), checkpoint)
    monkeypatch.setattr(running.build, "load_method", lambda path, trusted=(): loaded)

    def build_data(cfg):
        stand.asked = cfg.data
        return stand.data

    monkeypatch.setattr(running.build, "build_data_from_file", build_data)
    return stand


def settings(checkpoint, *overrides):
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        return compose("evaluate", [f"checkpoint={checkpoint}", "device=cpu", *overrides])


def test_knn_of_a_run_folder_is_written_beside_its_checkpoint(trained, capsys):
    result = run(settings(trained.folder, "protocol.k=20", "protocol.also=[5]"))
    method, data = trained.method.eval(), trained.data
    with torch.no_grad():
        bank, query = method.net(data.images[:200]), method.net(data.images[200:])
    wanted = knn_top1(query, data.labels[200:], bank, data.labels[:200], 3, 20)
    assert result["top1"] == wanted > 40 and set(result["top1_by_k"]) == {"5", "20"}
    assert result["samples"] == {"train": 200, "test": 60} and (result["epoch"], result["step"]) == (2, 9)
    assert json.loads((trained.folder / "evaluation" / "knn.json").read_text()) == result
    printed = capsys.readouterr().out
    assert "BYOL, resnet8: knn on digits" in printed and f"{wanted:.2f}" in printed


def test_the_linear_protocol_reads_the_features_that_knn_cached(trained):
    run(settings(trained.folder))
    calls = trained.method.calls
    result = run(settings(trained.folder, "protocol=linear", "protocol.sweep=[0.1, 0.01]"))
    assert trained.method.calls == calls == 6  # batches of training and test set, read once
    assert result["top1"] > 40 and list(result["held_out"]) == ["0.1", "0.01"] and result["protocol"] == "linear"
    (trained.folder / "checkpoints" / "last.ckpt").write_bytes(b"other weights")
    run(settings(trained.folder))
    run(settings(trained.folder, "cache=false"))
    assert trained.method.calls == 3 * calls


def test_a_root_given_alone_moves_the_checkpoints_data(trained, tmp_path):
    run(settings(trained.folder, "data.root=/elsewhere"))
    assert trained.asked.root == "/elsewhere" and trained.asked.source["_target_"].endswith("digits")
    assert trained.asked.batch_size == 64


def test_a_setting_of_the_source_given_alone_changes_the_checkpoints_data():
    old = {"source": {"_target_": "a.fsdd", "label": "digit", "max_damaged": 3}, "root": "here"}
    trained = OmegaConf.create({"data": old, "augmentation": None})
    wanted = config.load(["data.source.label=speaker"], "evaluate").data
    found = data_config(trained, wanted).data
    assert found.source == {"_target_": "a.fsdd", "label": "speaker", "max_damaged": 3} and found.root == "here"
    assert source_words(wanted) == "-speaker" and source_words(config.load([], "evaluate").data) == ""
    whole = config.load(["data=synthetic", "data.source.classes=3"], "evaluate").data
    assert whole.source.classes == 3 and source_words(whole) == ""


def test_other_data_are_prepared_as_the_encoder_knows_images_and_get_their_own_file():
    other = {
        "_target_": "ssl_zoo.data.image.datamodule.ImageData",
        "source": {"_target_": "ssl_zoo.data.image.folder.Folder"},
        "root": "/data/Flowers",
        "image_size": 224,
        "channels": 1,
        "seed": "${seed}",
        "batch_size": "${scale.batch_size}",
        "augmentation": "${augmentation}",
    }
    trained = OmegaConf.create(TRAINED)
    data = data_config(trained, OmegaConf.create({"data": other}).data).data
    assert (data.image_size, data.channels, data.seed, data.batch_size) == (8, 3, 3, 64)
    assert data.augmentation == TRAINED["augmentation"]
    assert data_name(data) == "folder-flowers" and data_name(trained.data) == "digits"
    assert data_config(trained, None, image_size=16).data.image_size == 16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(labels=False), "evaluation needs labels and this data has none"),
        (Data(validation=False), "needs a validation set and this data has none; data.val_fraction=0.1 makes one"),
    ],
)
def test_data_that_cannot_be_evaluated_on_is_named(trained, data, message):
    trained.data = data
    with pytest.raises(ConfigError, match=message):
        run(settings(trained.folder))
    assert not (trained.folder / "evaluation").exists()


def test_a_missing_checkpoint_names_what_lies_beside_it(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"lost.ckpt: there is no such file; in .*: did you mean 'last.ckpt'\?"):
        find(trained.folder / "checkpoints" / "lost.ckpt")
    with pytest.raises(ConfigError, match=r"no such file; .*absent is no folder either"):
        find(tmp_path / "absent" / "last.ckpt")
    assert find(tmp_path) == find(trained.folder)  # the only run of a sweep
    (tmp_path / "another" / "checkpoints").mkdir(parents=True)
    (tmp_path / "another" / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"there are 2 runs below it, choose one: .*another, .*run$"):
        find(tmp_path)
    with pytest.raises(ConfigError, match="checkpoint is not given; wanted checkpoint=RUN_FOLDER"):
        find(None)
    file = trained.folder / "checkpoints" / "last.ckpt"
    assert find(file) == find(trained.folder) and find(file).folder == trained.folder


def test_a_device_that_is_not_there_and_an_unwritable_result_are_named(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"device=tpu cannot be used \(.*\); wanted auto, cpu, cuda or cuda:N"):
        pick_device("tpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the result to .*file/out.json .*output=FILE"):
        run(settings(trained.folder, f"output={tmp_path}/file/out.json"))


def test_raw_pixels_are_the_baseline():
    data = Data()
    result = compare(Untrained(ImageSource().baseline), data, bank_size=100, k=7)
    pixels, bank = data.images.flatten(1), balanced_rows(data.train_labels, 100)
    assert result["knn"] == knn_top1(pixels[200:], data.labels[200:], pixels[bank], data.labels[bank], 3, 7)
    assert result["linear"] > 50


def features_of_a_rank():
    return extract(Method(), Data().batches(0, 200)[rank() :: 2], "cpu")


def test_two_processes_extract_what_one_does(pool):
    whole = extract(Method(), Data().batches(0, 200), "cpu")
    for part in pool.run(features_of_a_rank):
        for got, wanted in zip(part, whole, strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("overrides, wanted", [
    (["protocol.k=0"], "protocol.k=0: evaluate wants a whole number of at least 1"),
    (["protocol=linear", "protocol.sweep=[a]"], "protocol.sweep=['a']: evaluate wants a list, each a number"),
    (["protocol=linear", "protocol.held_out_fraction=2"], "protocol.held_out_fraction=2: evaluate wants a number"),
    (["layers=0"], "layers=0: wanted a whole number of at least 1"),
    (["image_size=-3", "data.batch_size=word"],
     "image_size=-3: wanted a whole number of at least 1\ndata.batch_size='word': wanted a whole number of at least 1"),
])  # fmt: skip
def test_wrong_values_are_told_before_the_checkpoint_is_read(overrides, wanted):
    with pytest.raises(ConfigError) as error:
        run(config.load(overrides, "evaluate"))
    assert str(error.value).startswith(wanted)


def test_validation_images_without_labels_are_a_sentence(trained):
    trained.data.labels[200:] = -1
    with pytest.raises(ConfigError, match="no validation sample has one; data.val_fraction=0.1 holds labelled"):
        run(settings(trained.folder))
