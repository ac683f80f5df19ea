"""Distillation: whom it learns from, how labels are mixed in, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.distillation import softened_cross_entropy
from tests import helpers
from tests.cli.test_runs import run
from tests.methods.test_crd import written


def test_labels_are_mixed_in_by_their_weight_and_only_where_there_are_any():
    method = helpers.tiny_method("distill", ["method.labelled=0.25", "method.temperature=0.5"])
    batch = helpers.tiny_batch([16])
    batch.label[2:] = -1
    out = method.training_loss(batch)
    logits = method.classifier(out["features"])
    _, wanted = method.teacher(batch.views[0])
    torch.testing.assert_close(out["distillation"], softened_cross_entropy(logits, wanted, 0.5))
    named = torch.nn.functional.cross_entropy(logits[:2], batch.label[:2])
    torch.testing.assert_close(out["loss"], 0.75 * out["distillation"] + 0.25 * named)
    batch.label = None  # an unlabelled set
    out = method.training_loss(batch)
    assert torch.equal(out["loss"], out["distillation"])


def test_unlabelled_data_learn_the_teachers_classes(tmp_path: Path):
    written(tmp_path / "teacher.ckpt", "supervised", helpers.info())
    cfg = helpers.tiny_config("distill")
    cfg.method.teacher = {"checkpoint": str(tmp_path / "teacher.ckpt"), "timm": None, "network": None}
    unlabelled = image_info(samples=64, classes=None, image_size=16, channels=3, batch_size=8)
    with pytest.warns(UserWarning, match="trained with augmentation.normalize=.*0.4914.* and this run has None"):
        method = build.build_method(cfg, unlabelled)
    assert method.classifier.out_features == helpers.CLASSES


def test_teachers_without_classes_and_wrong_weights_are_refused(tmp_path: Path):
    written(tmp_path / "simclr.ckpt", "simclr", helpers.info())
    cfg = helpers.tiny_config("distill")
    cfg.method.teacher = {"checkpoint": str(tmp_path / "simclr.ckpt"), "timm": None, "network": None}
    with pytest.raises(ConfigError, match="no classifier to learn from; fine-tune it first .*protocol=finetune"):
        build.build_method(cfg, helpers.info())
    with pytest.raises(ConfigError, match="method.labelled=2.0: wanted the weight of the labels, 0 to 1"):
        helpers.tiny_method("distill", ["method.labelled=2.0"])


@pytest.mark.slow
def test_three_steps_and_a_round_of_noisy_student_are_a_command_each(tmp_path: Path):
    words = ["data=synthetic", "data.image_size=16", "data.source.samples=512", "data.batch_size=64", "logger=csv"]
    words += ["backbone.width=4", "trainer=cpu", "trainer.max_epochs=2", "report=false", "callbacks=none"]
    teacher = "pretrained/evaluation/finetune-labels0.25"
    for command in (
        ["train.py", "method=simclr_v2", *words, "hydra.run.dir=pretrained"],
        ["evaluate.py", "protocol=finetune", "checkpoint=pretrained", "data.labels=0.25", "protocol.head_layers=1"],
        ["train.py", "method=distill", *words, f"method.teacher.checkpoint={teacher}", "hydra.run.dir=student"],
        ["evaluate.py", "protocol=classifier", "checkpoint=student"],
        ["evaluate.py", "protocol=pseudo_labels", f"checkpoint={teacher}", "protocol.out=guesses", "data.labels=0.25"],
        ["train.py", "method=noisy_student", *words, "data.labels=0.25", "data.pseudo_labels=guesses",
         "hydra.run.dir=noisy"],
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    tuned = json.loads((tmp_path / "pretrained/evaluation/finetune-labels0.25.json").read_text())
    student = json.loads((tmp_path / "student/evaluation/classifier.json").read_text())
    assert tuned["top1"] > 60 and student["top1"] > 30  # of four classes
