"""Pseudo-labels: balancing by hand, and the command on a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_zoo import build, cli, config
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.pseudo_labels import balanced
from ssl_zoo.evaluation.run import run
from tests.evaluation.test_finetune import DATA, INFO
from tests.methods.test_crd import written


def binary(*confidence: float) -> torch.Tensor:
    """Probabilities of class 1 where positive, of class 0 where negative."""
    p = torch.tensor([c if c > 0 else 1 + c for c in confidence], dtype=torch.float64)
    return torch.stack([1 - p, p], 1)


def test_a_class_keeps_what_reaches_the_first_threshold_that_is_enough():
    found = balanced(binary(0.995, 0.9, 0.903, 0.7, -0.8, -0.6), 3, 0.0, torch.zeros(6))
    assert found.threshold.tolist() == [0.0, 0.9] and found.available.tolist() == [2, 3]
    # Class 0 has two samples for three places: one each, and half a one more, which a draw of 0 gives to both.
    assert found.copies.tolist() == [1, 1, 1, 0, 2, 2]


def test_fractions_are_drawn_and_repeats_can_be_switched_off():
    probabilities, draws = binary(-0.8, -0.6), torch.tensor([0.49, 0.5])
    assert balanced(probabilities, 3, 0.0, draws).copies.tolist() == [2, 1]
    assert balanced(probabilities, 3, 0.0, draws, upsample=False).copies.tolist() == [1, 1]
    # All four of a hundredth are kept, three quarters of them each.
    many = balanced(binary(0.905, 0.906, 0.904, 0.903), 3, 0.0, torch.tensor([0.1, 0.7, 0.75, 0.9]))
    assert many.copies.tolist() == [1, 1, 0, 0] and many.available.tolist() == [0, 4]


def test_what_is_below_the_least_confidence_is_dropped():
    found = balanced(binary(0.9, 0.55, -0.51), 2, 0.6, torch.full((3,), 0.99))
    assert found.copies.tolist() == [2, 0, 0] and found.threshold.tolist() == [0.6, 0.6]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    written(tmp_path / "last.ckpt", "supervised", INFO, DATA)
    return tmp_path / "last.ckpt"


def test_the_command_writes_what_the_network_says_of_its_evaluation_views(checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    words = [f"checkpoint={checkpoint}", f"out={out}", "confidence=0.2", "ratio=4", "data.labels=0.25", "device=cpu"]
    assert cli.entry(["pseudo-label", *words]) == 0
    found = load_file(out)
    method, cfg, _ = build.load_method(checkpoint)
    data = build.build_data(cfg)
    for view, _, index in data.train_eval_loader():
        with torch.no_grad():
            wanted = method.classifier(method.embed(view)).softmax(1)
        torch.testing.assert_close(found["probabilities"][index], wanted)
    kept = found["probabilities"].max(1).values >= 0.2
    cfg.data.labels = 0.25
    labelled = build.build_data(cfg).train_labels >= 0
    unlabelled = int((kept & ~labelled).sum())
    assert torch.equal(found["copies"][~labelled], kept[~labelled].long())
    assert (found["copies"][labelled] == max(round(unlabelled / (4 * 16)), 1)).all()
    cfg.data.pseudo_labels = str(out)
    assert build.build_data(cfg).info.samples == int(found["copies"].sum())


def test_hard_labels_are_one_hot_and_balanced_ones_repeat(checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    words = [f"checkpoint={checkpoint}", f"protocol.out={out}", "protocol.hard=true", "data.labels=0.25", "device=cpu"]
    words += ["protocol=pseudo_labels", "protocol.per_class=100", "protocol.confidence=0"]
    result = run(config.load(words, "evaluate"))
    found = load_file(out)
    assert ((found["probabilities"] == 1).sum(1) == 1).all() and found["probabilities"].sum() == 64
    guessed = int((found["probabilities"].sum(0) > 0).sum())
    extra = int(found["copies"].sum()) - 16
    assert abs(extra - 100 * guessed) < 48 and result["samples"]["an epoch"] == extra + 16


def test_what_cannot_be_guessed_is_told(checkpoint, tmp_path):
    def asked(*words):
        given = ["protocol=pseudo_labels", f"checkpoint={checkpoint}", "device=cpu", *words]
        run(config.load(given, "evaluate"))

    out = f"protocol.out={tmp_path / 'out.safetensors'}"
    with pytest.raises(ConfigError, match="out is not given; wanted out=FILE"):
        asked()
    with pytest.raises(ConfigError, match="confidence=2: wanted a probability"):
        asked(out, "protocol.confidence=2")
    with pytest.raises(ConfigError, match="no unlabelled sample is guessed with a confidence of 1.0; lower it"):
        asked(out, "protocol.confidence=1.0", "data.labels=0.25")
    with pytest.raises(ConfigError, match="no unlabelled sample .* leave samples without a label with data.labels"):
        asked(out)
    written(tmp_path / "simclr.ckpt", "simclr", INFO, DATA)
    with pytest.raises(ConfigError, match="SimCLR has no classifier of its own; judge its features"):
        asked(out, f"checkpoint={tmp_path / 'simclr.ckpt'}")
