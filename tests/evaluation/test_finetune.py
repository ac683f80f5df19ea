"""Fine-tuning: what it starts from, on which labels, what it leaves, and that interruption changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_zoo import build, config, runs
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.finetune import pretrained
from ssl_zoo.evaluation.run import run
from ssl_zoo.methods.finetune import FineTune
from ssl_zoo.teachers import load_teacher
from tests.methods.test_crd import written

DATA = ["data.source.samples=64", "data.source.val_samples=32", "data.batch_size=8", "trainer=cpu"]
INFO = image_info(samples=64, classes=4, image_size=16, channels=3, batch_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Run folder of a SimCLR whose weights are drawn from seed 7."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    written(tmp_path / "run" / "checkpoints" / "last.ckpt", "simclr", INFO, [*DATA, "seed=7"])
    return tmp_path / "run"


def tuned(folder: Path, *words: str, epochs: int = 1) -> dict[str, Any]:
    settings = ["protocol=finetune", f"checkpoint={folder}", "device=cpu", "protocol.batch_size=8"]
    return run(config.load([*settings, f"protocol.trainer.max_epochs={epochs}", *words], "evaluate"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return runs.read_checkpoint(folder)["state_dict"]


def test_without_a_rate_the_network_is_the_pretrained_one_with_the_beginning_of_its_head(folder):
    result = tuned(folder, "protocol.head_layers=1", "protocol.optimizer.values.lr.peak=0")
    before, after = weights(folder), weights(Path(result["run"]))
    kept = {name: value for name, value in before.items() if name.startswith("backbone.") and "running" not in name}
    assert kept and all(torch.equal(after[name], value) for name, value in kept.items() if "tracked" not in name)
    assert torch.equal(after["classifier.0.weight"], before["projector.0.weight"])
    assert not after["classifier.3.weight"].any() and after["classifier.3.weight"].shape == (4, 16)
    assert result["name"] == "finetune" and result["samples"] == {"train": 64, "test": 32}
    assert not (Path(result["run"]) / "start.safetensors").exists()


def test_labels_are_a_share_and_what_it_leaves_is_a_teacher(folder):
    result = tuned(folder, "data.labels=0.25", epochs=2)
    assert result["name"] == "finetune-labels0.25" and result["samples"]["train"] == 16
    assert json.loads((folder / "evaluation" / "finetune-labels0.25.json").read_text()) == result
    network = build.load_method(result["run"])[0]
    teacher = load_teacher({"checkpoint": result["run"]}, INFO)
    view = torch.randn(4, 3, 16, 16)
    assert teacher.classes == 4
    torch.testing.assert_close(teacher(view)[1], network.logits(view))
    judged = run(config.load(["protocol=classifier", f"checkpoint={result['run']}", "device=cpu"], "evaluate"))
    assert judged["top1"] == result["top1"]


def test_from_scratch_nothing_is_the_checkpoints(folder):
    result = tuned(folder, "protocol.from_scratch=true", "protocol.optimizer.values.lr.peak=0")
    before, after = weights(folder), weights(Path(result["run"]))
    assert result["name"] == "finetune-scratch"
    again = tuned(folder, "protocol.from_scratch=true", "protocol.optimizer.values.lr.peak=0", "protocol.seed=3")
    other = weights(Path(again["run"]))
    assert not torch.equal(after["backbone.net.conv1.weight"], other["backbone.net.conv1.weight"])
    assert before.keys() > {name for name in after if name.startswith("backbone.")}


@pytest.mark.slow
def test_an_interrupted_fine_tuning_goes_on_bit_for_bit(folder, monkeypatch):
    whole = weights(Path(tuned(folder, "protocol.head_layers=-1", epochs=3)["run"]))
    inner, steps = FineTune.training_loss, []

    def killed(self: Any, batch: Any) -> Any:
        steps.append(batch)
        if len(steps) == 20:  # in the third epoch of eight steps
            raise RuntimeError("killed")
        return inner(self, batch)

    monkeypatch.setattr(FineTune, "training_loss", killed)
    record = runs.read_record(folder / "evaluation" / "finetune")
    record.identity["seed"] = 9  # of other settings: it is trained anew
    record.write(folder / "evaluation" / "finetune")
    with pytest.raises(RuntimeError, match="killed"):
        tuned(folder, "protocol.head_layers=-1", epochs=3)
    tuned(folder, "protocol.head_layers=-1", epochs=3)
    assert len(steps) == 20 + 8  # two epochs are not repeated
    resumed = weights(folder / "evaluation" / "finetune")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items() if torch.is_tensor(value))
    tuned(folder, "protocol.head_layers=-1", epochs=3)
    assert len(steps) == 28  # finished: judged again, not trained again


def test_what_cannot_be_fine_tuned_is_told(folder, tmp_path):
    for words, message in (
        (["protocol.batch_size=128"], "protocol.batch_size=128: the training set has 64 labelled samples"),
        (["protocol.head_layers=3"], "protocol.head_layers=3: a head of 2 layers has no first 3"),
        (["data=synthetic", "data.source.classes=null"], "evaluation needs labels and this data has none"),
        (["protocol.init=ones"], "method.init='ones': FineTune wants 'zeros' or 'normal'"),
        (["+protocol.backbone.width=16"], "protocol.backbone: .*change only what has no weights"),
        (["protocol.ops=[{image/flop: {}}]"], "augmentation.views.0.ops: .*image/flop"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            tuned(folder, *words)
    for name, message in (
        ("cmc", "protocol.head_layers=1: CMC has no projector; wanted 0"),
        ("supervised", "protocol.head_layers=1: Supervised has no projector; wanted 0"),
    ):
        written(tmp_path / f"{name}.ckpt", name, INFO, DATA)
        with pytest.raises((ConfigError, ValueError), match=message):
            tuned(tmp_path / f"{name}.ckpt", "protocol.head_layers=1")
    with pytest.raises(ConfigError, match="SimpleNamespace is evaluated by a Linear, .* whose encoder is one backbone"):
        pretrained(SimpleNamespace(encoder=torch.nn.Linear(2, 2)), 0)


@pytest.mark.parametrize("protocol", ["finetune_simclr_v2", "finetune_vit"])
def test_the_other_recipes_compose_and_keep_the_name(protocol):
    node = config.load([f"protocol={protocol}"], "evaluate").protocol
    assert node.name == "finetune" and node._target_.endswith("finetune.evaluate")
    assert node.optimizer.optimizer._target_.endswith({"finetune_vit": "AdamW"}.get(protocol, "LARS"))


@pytest.mark.slow
def test_layers_of_a_transformer_learn_more_slowly_the_earlier_they_are(tmp_path):
    extra = [*DATA, "backbone=vit", "backbone.embed_dim=16", "backbone.depth=2", "backbone.num_heads=2"]
    cfg = config.load(["method=supervised", "data=synthetic", "data.image_size=16", "report=false", *extra])
    method = build.build_method(cfg, INFO)
    record = build.run_record(cfg, runs.Record.begin(config.plain(cfg)), INFO)
    torch.save({"state_dict": method.state_dict(), "ssl_zoo": record}, tmp_path / "vit.ckpt")
    result = tuned(tmp_path / "vit.ckpt", "protocol=finetune_vit", "protocol.optimizer.layer_decay=0.5")
    tuning = build.load_method(result["run"])[0]
    table = {row.name: row.highest_lr for row in tuning.bind(8).table(tuning.progress)}
    assert table["default x 0.125"] == pytest.approx(table["default"] / 8)
