"""Starting from existing weights; the download itself is replaced by a local file."""

from __future__ import annotations

import functools
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models
from torchvision.models import WeightsEnum

from ssl_zoo.backbones import image
from ssl_zoo.backbones.image import tiny
from ssl_zoo.backbones.weights import load_weights
from ssl_zoo.errors import ConfigError

SMALL = {"image_size": 32, "stem": "small"}


def state_of(backbone):
    return {name: value.clone() for name, value in backbone.net.state_dict().items()}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_gives_the_same_features(tmp_path, views, suffix):
    torch.manual_seed(1)
    source = tiny.resnet8(width=16).eval()
    source.net.bn1.running_mean.uniform_()
    path = tmp_path / f"encoder.{suffix}"
    save_file(state_of(source), path) if suffix == "safetensors" else torch.save({"state_dict": state_of(source)}, path)
    again = tiny.resnet8(width=16, weights=str(path)).eval()
    assert torch.equal(again(views(32)), source(views(32)))


def test_a_classifier_in_the_file_is_ignored_and_old_files_have_no_counters(tmp_path):
    state = {name: value for name, value in models.resnet18().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "resnet18.pth")
    backbone = image.resnet18(weights=str(tmp_path / "resnet18.pth"))
    assert torch.equal(backbone.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_another_stem_is_reported_and_loads(tmp_path, caplog):
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pt")
    with caplog.at_level(logging.INFO):
        image.resnet18(**SMALL, weights=str(tmp_path / "resnet18.pt"))
    assert "99 of 100 tensors match\n  other shape: conv1.weight [64, 3, 7, 7] instead of [64, 3, 3, 3]" in caplog.text
    assert caplog.records[-1].levelname == "WARNING"


def test_less_than_99_percent_is_an_error_that_shows_the_difference(tmp_path):
    save_file(state_of(tiny.resnet8(width=16)), tmp_path / "a.safetensors")
    with pytest.raises(ConfigError) as error:
        tiny.resnet8(width=32, weights=str(tmp_path / "a.safetensors"))
    text = str(error.value)
    assert "a.safetensors: 0 of 45 tensors match" in text and "at least 99% must" in text
    assert "conv1.weight [16, 3, 3, 3] instead of [32, 3, 3, 3]" in text and "and 41 more" in text


def test_a_deeper_network_of_the_same_shapes_is_refused(tmp_path):
    # Every tensor of a ResNet-18 is found in a ResNet-34, but half of the file would be thrown away.
    with torch.device("meta"):
        deeper, net = models.resnet34().state_dict(), image.resnet18().net
    with pytest.raises(ConfigError, match=r"100 of 180 tensors match\n  unknown: layer1.2.conv1.weight"):
        load_weights(net, deeper, "resnet34", ignore=["fc"])


def test_a_failed_load_changes_nothing():
    backbone = tiny.resnet8(width=16)
    before = state_of(backbone)
    with pytest.raises(ConfigError):
        load_weights(backbone.net, {"conv1.weight": torch.ones(16, 3, 3, 3)}, "half a file")
    assert all(torch.equal(value, before[name]) for name, value in backbone.net.state_dict().items())


def test_missing_damaged_and_foreign_files(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; wanted null, timm:NAME, torchvision:NAME"):
        tiny.resnet8(weights="nowhere.safetensors")
    for name in ("bad.pt", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ConfigError, match=rf"{name} could not be read"):
            tiny.resnet8(weights=str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="holds no tensors by name"):
        tiny.resnet8(weights=str(tmp_path / "list.pt"))


def test_a_vit_of_another_image_and_patch_size_has_its_positions_resampled(tmp_path):
    source = tiny.vit_mini(image_size=64, stem="standard", patch_size=8, in_channels=3)
    with torch.no_grad():
        source.net.pos_embed[:, 1:] = torch.arange(8.0).repeat(8, 1).reshape(1, 64, 1)  # grows from left to right
        source.net.patch_embed.proj.weight.fill_(1.0)
    save_file(state_of(source), tmp_path / "vit.safetensors")
    net = tiny.vit_mini(image_size=16, stem="standard", patch_size=4, weights=str(tmp_path / "vit.safetensors")).net
    assert net.pos_embed.shape == (1, 17, 128) and torch.equal(net.pos_embed[:, 0], source.net.pos_embed[:, 0])
    columns = net.pos_embed[0, 1:, 0].reshape(4, 4)
    assert torch.allclose(columns, columns[:1].expand(4, 4), atol=1e-5) and (columns.diff(dim=1) > 1).all()
    # A constant image keeps its embedding, up to the antialiasing at the border: 8 * 8 ones, 4 * 4 weights near 4.
    assert torch.allclose(net.patch_embed.proj.weight.sum((2, 3)), torch.full((128, 3), 64.0), rtol=0.03)


def test_colour_weights_in_a_grey_network_are_summed(tmp_path):
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pt")
    conv = image.resnet18(in_channels=1, weights=str(tmp_path / "resnet18.pt")).net.conv1
    assert torch.allclose(conv.weight, state["conv1.weight"].sum(1, keepdim=True))


def test_torchvision_weights_by_name_and_tag(monkeypatch):
    asked = []
    state = models.resnet18().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **_: asked.append(str(self)) or state)
    backbone = image.resnet18(weights="torchvision:resnet18")
    image.timm_model("resnet18", weights="torchvision:resnet18.IMAGENET1K_V1")  # timm's names are the same
    assert asked == ["ResNet18_Weights.IMAGENET1K_V1"] * 2
    assert torch.equal(backbone.net.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])
    with pytest.raises(ConfigError, match=r"no such weights of resnet18; did you mean 'IMAGENET1K_V1'\?"):
        image.resnet18(weights="torchvision:resnet18.IMAGENET1K_V2")
    with pytest.raises(ConfigError, match="torchvision has no such network; did you mean 'resnet18'"):
        image.resnet18(weights="torchvision:resnet-18")


def test_timm_weights_pass_through_timms_own_loader(tmp_path, monkeypatch, views):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    local = functools.partial(timm.create_model, pretrained_cfg_overlay={"file": str(tmp_path / "vit.pth")})
    monkeypatch.setattr(timm, "create_model", local)
    backbone = image.vit_tiny(image_size=64, weights="timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k").eval()
    monkeypatch.undo()
    assert torch.equal(backbone.net.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert backbone.net.pos_embed.shape == (1, 17, 192)
    assert backbone(views(64)).shape == (2, 192)
    with pytest.raises(ConfigError, match="timm has no such weights; did you mean 'resnet50.a1_in1k'"):
        image.resnet50(weights="timm:resnet50.a1_in1kk")


def test_no_network_says_what_to_do(monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ConfigError, match=r"resnet18.a1_in1k could not be loaded \(OSError: no route.*weights=FILE"):
        image.resnet18(weights="timm:resnet18.a1_in1k")
    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ConfigError, match="torchvision:resnet18 could not be loaded.*without network"):
        image.resnet18(weights="torchvision:resnet18")
