"""CRD: where the teacher comes from, what it costs, and that the student's checkpoint needs no other file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_zoo import build, config, runs
from ssl_zoo.data.batch import DataInfo
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.teachers import load_teacher
from tests import helpers
from tests.cli.test_runs import run


def written(path: Path, name: str, info: DataInfo, extra: list[str] | None = None) -> Any:
    """A checkpoint as a run writes it; returns the method."""
    cfg = helpers.tiny_config(name, extra or [])
    method = build.build_method(cfg, info)
    record = build.run_record(cfg, runs.Record.begin(config.plain(cfg)), info)
    torch.save({"state_dict": method.state_dict(), "ssl_zoo": record, "global_step": 0}, path)
    return method.eval()


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    written(tmp_path / "teacher.ckpt", "supervised", helpers.info(), ["seed=7"])
    return tmp_path / "teacher.ckpt"


def student_config(teacher: Path) -> Any:
    cfg = helpers.tiny_config("crd")
    cfg.method.teacher = {"checkpoint": str(teacher), "timm": None, "pretrained": False, "network": None}
    return cfg


def test_a_teacher_of_ours_gives_its_features_and_logits_and_never_trains(teacher_file: Path) -> None:
    wanted, _, _ = build.load_method(teacher_file)
    teacher = load_teacher({"checkpoint": str(teacher_file)}, helpers.info()).train()
    view = torch.randn(4, 3, 16, 16)
    features, logits = teacher(view)
    torch.testing.assert_close(features, wanted.embed(view))
    torch.testing.assert_close(logits, wanted.classifier(wanted.embed(view)))  # type: ignore[operator]
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_students_own_weights_do_not_depend_on_the_teacher(teacher_file: Path) -> None:
    one = build.build_method(student_config(teacher_file), helpers.info())
    other = build.build_method(helpers.tiny_config("crd"), helpers.info())
    assert torch.equal(one.get_parameter("embed_student.weight"), other.get_parameter("embed_student.weight"))


def test_a_checkpoint_of_the_student_is_read_when_the_teachers_is_gone(teacher_file: Path, tmp_path: Path) -> None:
    cfg = student_config(teacher_file)
    before = config.config_hash(config.plain(cfg))
    student = build.build_method(cfg, helpers.info()).eval()
    assert config.config_hash(config.plain(cfg)) == before  # what resume=auto looks for
    record = build.run_record(cfg, runs.Record.begin(config.plain(cfg)), helpers.info())
    torch.save({"state_dict": student.state_dict(), "ssl_zoo": record}, tmp_path / "student.ckpt")
    teacher_file.unlink()
    again, _, _ = build.load_method(tmp_path / "student.ckpt")
    view = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.teacher(view), student.teacher(view))  # type: ignore[operator]
    resumed = student_config(teacher_file)
    resumed.resume = str(tmp_path / "student.ckpt")
    build.load_state(build.build_method(resumed, helpers.info()), student.state_dict(), "student.ckpt")


def test_teachers_that_cannot_be_are_refused_with_a_sentence(teacher_file: Path, tmp_path: Path) -> None:
    info = helpers.info()
    for teacher, words in (
        ({}, "wants one of method.teacher.checkpoint=RUN_FOLDER_OR_FILE .*; neither is given"),
        ({"checkpoint": "a", "timm": "b"}, "got both, a and b"),
        ({"checkpont": "a"}, "method.teacher has no 'checkpont'; did you mean 'checkpoint'"),
        ({"checkpoint": str(teacher_file), "backbone": "wrn_40_2"}, "network is resnet8, .* made for wrn_40_2; take"),
        ({"checkpoint": str(tmp_path / "none.ckpt")}, "there is no such file; .*; wanted a .ckpt file or a run folder"),
        ({"timm": "resnet81"}, "method.teacher.timm=resnet81: timm has no such network; did you mean 'resnet"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_teacher(teacher, info)
    other = image_info(samples=64, classes=9, image_size=16, channels=3, batch_size=8)
    with pytest.raises(ConfigError, match="it knows 4 classes and the data has 9"):
        load_teacher({"checkpoint": str(teacher_file)}, other)


def test_a_teacher_without_classes_teaches_features_only(tmp_path: Path) -> None:
    written(tmp_path / "simclr.ckpt", "simclr", helpers.info())
    cfg = student_config(tmp_path / "simclr.ckpt")
    method = build.build_method(cfg, helpers.info())
    out = method.training_loss(helpers.tiny_batch([16]))
    assert "kd" not in out and out["crd"] > 0
    cfg.method.kd = 1.0
    with pytest.raises(ConfigError, match="method.kd=1.0 needs logits and the teacher has no classifier"):
        build.build_method(cfg, helpers.info())


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    method = helpers.tiny_method("crd", ["method.ce=0.5", "method.kd=2", "method.crd=0.1"])
    out = method.training_loss(helpers.tiny_batch([16]))
    torch.testing.assert_close(out["loss"], 0.5 * out["ce"] + 2 * out["kd"] + 0.1 * out["crd"])


@pytest.mark.slow
def test_a_run_knows_all_labels_and_is_evaluated_without_its_teacher(tmp_path: Path) -> None:
    words = ["data=synthetic", "data.image_size=16", "data.source.samples=256", "data.batch_size=64"]
    words += ["backbone.width=4", "trainer=cpu", "trainer.max_epochs=1", "logger=csv", "report=false"]
    done = run("train.py", "method=supervised", *words, "hydra.run.dir=teacher", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words += ["method=crd", "method.negatives=64", "method.kd=1", "hydra.run.dir=student"]
    done = run("train.py", *words, "method.teacher.checkpoint=teacher", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "teacher").rename(tmp_path / "gone")
    done = run("evaluate.py", "checkpoint=student", "protocol=knn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "student/evaluation/knn.json").read_text())["features"] == 16
    done = run("train.py", *words, "method.teacher.checkpoint=teacher", "resume=auto", cwd=tmp_path)
    assert "finished already" in done.stdout, done.stderr
