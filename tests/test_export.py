"""Export: a fresh process must compute the same by the card alone; otherwise nothing is written."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from ssl_zoo import export as exporting
from ssl_zoo.data.image.source import image_info
from ssl_zoo.errors import ConfigError
from ssl_zoo.export import FORMATS, backbone_of, export, metrics
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.ema import EMA
from tests.helpers import quickly

IMAGE = "ssl_zoo.backbones.image"
CPC = "ssl_zoo.backbones.image.cpc_resnet"
SMALL = {"in_channels": 3, "image_size": 32, "stem": "small"}


def trained_run(tmp_path, monkeypatch, backbone, wrap=lambda net: net):
    """A run folder, and a stand-in for reading its checkpoint: the method is its backbone with moved weights."""
    cfg = OmegaConf.create(
        {
            "backbone": backbone,
            "method": {"_target_": "ssl_zoo.methods.byol.BYOL"},
            "data": {"image_size": backbone["image_size"], "channels": backbone["in_channels"], "source": {}},
            "augmentation": {"eval": {"ops": [{"image/resize": {}}]}, "normalize": {"mean": [0.5], "std": [0.25]}},
        }
    )
    torch.manual_seed(0)
    net = convert(instantiate(cfg.backbone))
    with torch.no_grad():
        for value in net.state_dict().values():  # nothing may still be at its initial value
            value.add_(torch.rand(value.shape) * 0.1 if value.is_floating_point() else 3)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"")
    checkpoint = {"epoch": 3, "global_step": 40, "ssl_zoo": {"hash": "abc", "version": "1"}}
    method = SimpleNamespace(encoder=wrap(net), data_info=image_info(64, 4, 32, 3, 8))
    monkeypatch.setattr(exporting.build, "load_method", lambda path, trusted=(): (method, cfg, checkpoint))
    return net.eval()


CASES = {
    "torchvision-as-timm": ({"_target_": f"{IMAGE}.resnet18", **SMALL, "stem": "standard", "image_size": 64}, "timm"),
    "torchvision-small-stem-one-channel": ({"_target_": f"{IMAGE}.resnet18", **SMALL, "in_channels": 1}, "torchvision"),
    "timm-vit": ({"_target_": "ssl_zoo.backbones.image.tiny.vit_mini", **SMALL}, "timm"),
    "timm-swin": (
        {"_target_": f"{IMAGE}.swin_tiny", "_convert_": "all", **SMALL, "embed_dim": 8, "depths": [2, 1, 1, 1]}
        | {"num_heads": [1, 1, 1, 1]},
        "timm",
    ),
    "own-network": ({"_target_": "ssl_zoo.backbones.image.tiny.resnet8", **SMALL, "width": 8}, "safetensors"),
}


@pytest.fixture
def unverified(monkeypatch):
    """Spare the seconds of a fresh process where a test is about something else."""
    monkeypatch.setattr(exporting, "verify", lambda *_: 0.0)


@pytest.mark.parametrize("case", quickly(list(CASES), ["own-network"]))
def test_the_lines_of_the_card_give_the_trained_encoder_in_a_fresh_process(case, tmp_path, monkeypatch):
    backbone, format = CASES[case]
    net = trained_run(tmp_path, monkeypatch, backbone)
    file = export(tmp_path, format)
    assert file.parent == tmp_path / "export" and len(list(file.parent.iterdir())) == 2
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["verified"]["difference"] <= 1e-5 and ("ssl_zoo" in card["load"]) == (format == "safetensors")
    monkeypatch.chdir(file.parent)
    scope: dict = {}
    exec(card["load"], scope)
    view = torch.randn(3, backbone["in_channels"], backbone["image_size"], backbone["image_size"])
    with torch.no_grad():
        torch.testing.assert_close(scope["net"](view), net(view), rtol=1e-5, atol=1e-5)


def test_weights_have_the_names_of_torchvision(tmp_path, monkeypatch, unverified):
    from torchvision.models import resnet18

    trained_run(tmp_path, monkeypatch, CASES["torchvision-as-timm"][0])
    names = set(load_file(export(tmp_path, "torchvision", tmp_path / "mine.safetensors")))
    assert names == {name for name in resnet18().state_dict() if not name.startswith("fc.")}
    assert (tmp_path / "mine.json").is_file()


def test_the_card_says_where_the_encoder_comes_from_and_how_to_feed_it(tmp_path, monkeypatch, unverified):
    trained_run(tmp_path, monkeypatch, CASES["own-network"][0])
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,probe/top1,knn/top1,train/loss\n0,5,50.5,40,1.0\n1,10,,45.25,0.9\n"
    )
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "linear.json").write_text('{"top1": 61.5}')
    (tmp_path / "evaluation" / "retrieval.json").write_text('{"recall@1": 40.0}')
    assert metrics(tmp_path) == {"probe/top1": 50.5, "knn/top1": 45.25, "evaluation/linear/top1": 61.5}
    card = json.loads(export(tmp_path).with_suffix(".json").read_text())
    assert card["metrics"]["probe/top1"] == 50.5 and card["config_hash"] == "abc" and card["epoch"] == 3
    assert card["preprocessing"] == {
        "input": "[B, 3, H, W], float in [0, 1] before normalisation",
        "range": [0, 255],
        "nodata": None,
        "image_size": 32,
        "ops": [{"image/resize": {}}],
        "normalize": {"mean": [0.5], "std": [0.25]},
    }


def test_a_network_of_one_size_is_fed_views_of_that_size(tmp_path, monkeypatch, unverified):
    sizes = {"image_size": 32, "patch": 0.25, "depths": [1, 1, 1, 1]}
    trained_run(tmp_path, monkeypatch, {"_target_": f"{CPC}.cpc_resnet101", "in_channels": 3, **sizes})
    card = json.loads(export(tmp_path).with_suffix(".json").read_text())
    assert card["preprocessing"]["image_size"] == 8  # a patch, not the image


def test_a_teacher_is_exported_as_the_backbone_inside_it(tmp_path, monkeypatch, unverified):
    net = trained_run(tmp_path, monkeypatch, CASES["own-network"][0], wrap=EMA)
    weights = load_file(export(tmp_path))
    assert torch.equal(weights["conv1.weight"], net.net.conv1.weight)
    with pytest.raises(ConfigError, match="the encoder is a Linear without a ssl_zoo Backbone inside"):
        backbone_of(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("case", "format", "message"),
    [
        (
            "own-network",
            "torchvision",
            "no network like 'resnet8' (stem small) in torchvision; this encoder can be exported as: safetensors",
        ),
        ("timm-vit", "torchvision", "can be exported as: timm, safetensors"),
        ("own-network", "torchvison", "format=torchvison: did you mean 'torchvision'?"),
    ],
)
def test_a_format_without_this_network_names_those_that_have_it(case, format, message, tmp_path, monkeypatch):
    trained_run(tmp_path, monkeypatch, CASES[case][0])
    with pytest.raises(ConfigError) as error:
        export(tmp_path, format)
    assert message in str(error.value)
    assert not (tmp_path / "export").exists()


@pytest.mark.slow
def test_nothing_is_written_when_the_fresh_process_disagrees(tmp_path, monkeypatch):
    trained_run(tmp_path, monkeypatch, CASES["own-network"][0])
    with monkeypatch.context() as unverified:
        unverified.setattr(exporting, "verify", lambda *_: 0.0)
        good = export(tmp_path).read_bytes()
    wrong = FORMATS["safetensors"]
    monkeypatch.setitem(FORMATS, "safetensors", lambda *a: f"{wrong(*a)}net.net.conv1.weight.data.mul_(1.01)\n")
    with pytest.raises(ConfigError, match=r"nothing was written: features differ by .*, at most 0.000\d+ wanted"):
        export(tmp_path)
    monkeypatch.setitem(FORMATS, "safetensors", lambda *a: "import no_such_module\n")
    with pytest.raises(ConfigError, match="a fresh process says: .*No module named 'no_such_module'"):
        export(tmp_path)
    assert [f.read_bytes() for f in (tmp_path / "export").glob("*.safetensors")] == [good]
    assert not list((tmp_path / "export").glob(".export-*"))


def test_a_wrong_target_or_a_missing_run_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"checkpoint=.*nowhere: there is no such file"):
        export(tmp_path / "nowhere")
    trained_run(tmp_path, monkeypatch, CASES["own-network"][0])
    with pytest.raises(ConfigError, match=r"out=.*net.pt: wanted a folder, or a file that ends in .safetensors"):
        export(tmp_path, out=tmp_path / "net.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another: out=FILE"):
        export(tmp_path, out=tmp_path / "file" / "net.safetensors")
