"""Names of earlier versions in files and in the records of runs mean what they are called now."""

from __future__ import annotations

import ast

import pytest

from ssl_zoo import config, renamed, runs
from ssl_zoo.signatures import locate

NAMES = (
    "data.arrays.cifar10", "data.folder.folder", "data.stream.stream", "data.packed.packed", "data.svhn.svhn",
    "data.synthetic.synthetic", "backbones.tiny.resnet8", "backbones.selective.resnet_sk", "backbones.widths.wrn_40_2",
    "backbones.image.resnet50", "backbones.amdim_encoder.amdim_encoder",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_names_is_there(name: str) -> None:
    found = renamed.moved({"_target_": f"ssl_zoo.{name}"})["_target_"]
    assert ".image." in found and callable(locate(found))


def test_data_of_images_are_told_from_other_data_of_the_same_name() -> None:
    old = "ssl_zoo.data.datamodule.DataModule"
    assert renamed.moved({"_target_": old, "image_size": 32})["_target_"].endswith("image.datamodule.ImageData")
    assert renamed.moved({"_target_": old})["_target_"] == old
    assert renamed.moved({"_target_": "mine.Net", "image_size": 3}) == {"_target_": "mine.Net", "image_size": 3}


def test_a_record_of_before_is_of_the_same_run() -> None:
    typed = config.plain(config.load(["data=digits", "method=simclr"]))
    record = runs.Record.begin(typed)
    before = str(record.identity).replace("data.image.datamodule.ImageData", "data.datamodule.DataModule")
    before = before.replace("data.image.arrays", "data.arrays").replace("backbones.image.tiny", "backbones.tiny")
    assert before != str(record.identity)
    old = runs.Record(ast.literal_eval(before), record.hash)
    assert old.differs(config.identity(typed)) == []


def test_what_was_said_of_the_data_becomes_facts() -> None:
    said = {"samples": 9, "classes": None, "image_size": [24, 16], "channels": 3, "batch_size": 4}
    wanted = {"samples": 9, "classes": None, "batch_size": 4, "facts": {"image_size": [24, 16], "channels": 3}}
    assert renamed.current_info(said) == wanted and renamed.current_info(wanted) == wanted


def test_the_state_of_the_data_is_found_by_the_name_of_today() -> None:
    data = {"_target_": "ssl_zoo.data.datamodule.DataModule", "image_size": 16}
    old = {"ssl_zoo": {"config": {"data": data}}, "DataModule": {"position": {"epoch": 3}}}
    found = renamed.current_checkpoint(old)
    assert found["ImageData"] == {"position": {"epoch": 3}} and "DataModule" not in found
    letters = {"ssl_zoo": {"config": {"data": {"_target_": data["_target_"]}}}, "DataModule": {"position": None}}
    assert "DataModule" in renamed.current_checkpoint(letters)


def yadim_of_before(**more: object) -> dict[str, object]:
    block = {"_target_": "ssl_zoo.modules.embedding_block.EmbeddingBlock", "_partial_": True}
    block |= {"width": 256, "norm": False}
    return {
        "_target_": "ssl_zoo.methods.amdim.AMDIM", "block": block, "layers": [-1], "grids": [None],
        "comparisons": [[1, 1]], "clip": 10.0, "penalty": 0.05, "classifiers": False, **more,
    }  # fmt: skip


def test_a_run_of_yadim_is_continued_as_one_of_the_framework() -> None:
    now = config.identity(config.plain(config.load(["data=digits", "method=yadim"])))
    networks = {key: now["method"][key] for key in ("backbone", "optimizer")}
    before = {**now, "method": {**networks, **yadim_of_before()}}
    assert config.differences(before, now) == []
    other = {**now, "method": {**networks, **yadim_of_before(clip=9.0)}}
    assert config.differences(other, now) == ["method.similarity.clip: 9.0, now 10.0"]


def test_a_run_of_amdim_stays_one() -> None:
    now = config.identity(config.plain(config.load(["data=digits", "method=yadim"])))
    whole = {**now, "method": yadim_of_before(comparisons=[[0, 1]])}
    assert any("AMDIM" in line for line in config.differences(whole, now))
    assert renamed.put_together(whole, whole) is whole
