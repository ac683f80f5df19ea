"""Weights in the files of others: where the network lies in them, what is told, what is refused."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_zoo import build, config
from ssl_zoo.backbones.base import backbone_of
from ssl_zoo.backbones.image import tiny
from ssl_zoo.errors import ConfigError

RUNS = Path(__file__).parents[1] / "fixtures" / "ff847eb"


def network(seed: int, **options) -> tuple[dict[str, Tensor], object]:
    torch.manual_seed(seed)
    backbone = tiny.resnet8(width=4, **options)
    return {name: value.clone() for name, value in backbone.net.state_dict().items()}, backbone


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


WANTED, _ = network(1)
OTHER, _ = network(2)
HEAD = {"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}
FILES = {
    "moco": (
        {"epoch": 200, "arch": "resnet8", "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}},
         "state_dict": below("module.encoder_k.", OTHER) | below("module.encoder_q.", WANTED)
         | below("module.encoder_q.fc.", HEAD)
         | {"module.queue": torch.zeros(2, 9), "module.queue_ptr": torch.zeros(1)}},
        "state_dict.module.encoder_q",
    ),
    "moco_v3": (
        {"state_dict": below("module.momentum_encoder.", OTHER) | below("module.base_encoder.", WANTED)},
        "state_dict.module.base_encoder",
    ),
    "dino": (
        {"student": below("module.backbone.", OTHER) | below("module.head.mlp.0.", HEAD), "epoch": 3,
         "teacher": below("backbone.", WANTED) | below("head.mlp.0.", HEAD),
         "args": argparse.Namespace(arch="r", lr=1)},
        "teacher.backbone",
    ),
    "byol": (
        {"state_dict": below("target_encoder.", OTHER) | below("online_encoder.", WANTED)},
        "state_dict.online_encoder",
    ),
    "solo": ({"state_dict": below("backbone.", WANTED) | below("classifier.", HEAD)}, "state_dict.backbone"),
    "momentum": (below("backbone_momentum.", OTHER) | below("backbone.", WANTED), "backbone"),
    "simsiam": ({"state_dict": below("module.encoder.", WANTED) | below("module.predictor.0.", HEAD)},
                "state_dict.module.encoder"),
    "swav": (below("module.", WANTED) | below("module.projection_head.0.", HEAD) | below("module.prototypes.", HEAD),
             "module"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_network_that_is_judged_is_found_and_told(name: str, tmp_path: Path) -> None:
    content, prefix = FILES[name]
    torch.save(content, tmp_path / "x.pth")
    found, backbone = network(3, weights=str(tmp_path / "x.pth"))
    assert all(torch.equal(value, WANTED[key]) for key, value in found.items())
    (told,) = backbone.told  # type: ignore[attr-defined]
    assert f"x.pth: 45 of 45 tensors match, under {prefix}" in told and "; left: " in told or name == "solo"
    assert ("also there" in told) == (name in ("moco", "moco_v3", "dino", "byol", "momentum"))


def test_what_is_left_is_counted_by_parts(tmp_path: Path) -> None:
    torch.save(FILES["moco"][0], tmp_path / "x.pth")
    (told,) = network(3, weights=str(tmp_path / "x.pth"))[1].told  # type: ignore[attr-defined]
    parts = ("encoder_k (54)", "encoder_q.fc (2)", "queue (1)", "queue_ptr (1)")
    assert told.endswith("; left: " + ", ".join(f"state_dict.module.{part}" for part in parts)), told
    torch.save(FILES["swav"][0], tmp_path / "x.pth")
    (told,) = network(3, weights=str(tmp_path / "x.pth"))[1].told  # type: ignore[attr-defined]
    assert told.endswith("; left: module.projection_head (2), module.prototypes (2)"), told


def test_another_part_is_taken_by_its_name(tmp_path: Path) -> None:
    torch.save(FILES["dino"][0], tmp_path / "x.pth")
    found, _ = network(3, weights=f"{tmp_path}/x.pth#student.module.backbone")
    assert torch.equal(found["conv1.weight"], OTHER["conv1.weight"])
    with pytest.raises(ConfigError, match=r"x.pth#student: no network lies there; wanted student.module.backbone, tea"):
        network(3, weights=f"{tmp_path}/x.pth#student")
    save = tmp_path / "odd#name.pth"
    torch.save(WANTED, save)
    assert torch.equal(network(3, weights=str(save))[0]["conv1.weight"], WANTED["conv1.weight"])


def test_nothing_that_fits_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"model": below("stages.0.", HEAD)}, tmp_path / "x.pth")
    with pytest.raises(ConfigError) as error:
        network(3, weights=str(tmp_path / "x.pth"))
    assert str(error.value) == (
        f"weights={tmp_path}/x.pth: none of its 2 tensors (model.stages.0.weight, model.stages.0.bias) has the name "
        "of one of the network's (conv1.weight, bn1.weight, bn1.bias, bn1.running_mean and 50 more); choose the "
        "backbone of these weights, or rename them"
    )
    first = {name: value for name, value in WANTED.items() if name.startswith("layer1")}
    torch.save({"state_dict": below("encoder.", first)}, tmp_path / "y.pth")
    with pytest.raises(ConfigError, match="of 45 tensors match\n  missing: conv1.weight, .*\nat least 99% must: ch"):
        network(3, weights=str(tmp_path / "y.pth"))


class Code:
    """What runs something when it is unpickled."""

    def __reduce__(self):
        return random.seed, (0,)


def test_a_file_that_holds_code_is_refused_and_does_not_run_it(tmp_path: Path) -> None:
    torch.save({"state_dict": WANTED, "args": Code()}, tmp_path / "x.pth")
    random.seed(7)
    before = random.getstate()
    with pytest.raises(ConfigError, match="x.pth could not be read .* write these into a file of their own"):
        network(3, weights=str(tmp_path / "x.pth"))
    assert random.getstate() == before


@pytest.mark.parametrize("given, wanted", [(3, 1), (3, 5), (5, 3), (4, 13), (1, 3), (6, 1)])
def test_a_first_layer_of_other_bands_is_adapted_and_said(given: int, wanted: int, tmp_path: Path) -> None:
    state, _ = network(1, in_channels=given)
    torch.save({"state_dict": below("module.encoder_q.", state)}, tmp_path / "x.pth")
    found, backbone = network(3, in_channels=wanted, weights=str(tmp_path / "x.pth"))
    first = found["conv1.weight"]
    turns = [i % given for i in range(wanted)]
    expected = state["conv1.weight"].sum(1, keepdim=True) if wanted == 1 else state["conv1.weight"][:, turns]
    torch.testing.assert_close(first, expected * (1 if wanted == 1 else given / wanted))
    assert torch.equal(found["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    how = "their sum" if wanted == 1 else f"repeated in turn, times {given}/{wanted}"
    assert f"conv1.weight: its {given} input channels are made {wanted} ({how})" in backbone.told[0]  # type: ignore[attr-defined]


def test_a_vit_below_a_prefix_with_other_bands_and_patches(tmp_path: Path) -> None:
    source = tiny.vit_mini(image_size=64, stem="standard", patch_size=8, in_channels=3)
    torch.save({"teacher": below("module.backbone.", source.net.state_dict())}, tmp_path / "x.pth")
    backbone = tiny.vit_mini(image_size=16, stem="standard", patch_size=4, in_channels=2,
                             weights=str(tmp_path / "x.pth"))  # fmt: skip
    assert torch.equal(backbone.net.blocks[1].attn.qkv.weight, source.net.blocks[1].attn.qkv.weight)
    assert backbone.net.patch_embed.proj.weight.shape == (128, 2, 4, 4) and "are made 2" in backbone.told[0]


@pytest.mark.parametrize("name", ["deepcluster_v2", "dino"])
def test_a_run_gives_the_encoder_that_is_judged_and_draws_nothing(name: str) -> None:
    run = RUNS / name
    method, cfg, _ = build.load_method(run)
    wanted = backbone_of(method.encoder).net.state_dict()
    wanted = {name: value for name, value in wanted.items() if "num_batches" not in name}  # which say nothing of it
    said = config.plain(cfg.backbone)
    for weights in (run, run / "checkpoints" / "last.ckpt"):
        torch.manual_seed(5)
        build.build_backbone({**said, "weights": None})
        draw = torch.rand(3)
        torch.manual_seed(5)
        started = build.build_backbone({**said, "weights": str(weights)})
        assert torch.equal(torch.rand(3), draw)  # heads are drawn next, and must not depend on the run's networks
        found = started.net.state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
        assert f"tensors match, of the encoder of {type(method).__name__}'s run" in started.told[0]
    if name == "dino":  # the teacher, not what was trained
        trained = method.backbone.net.state_dict()
        assert any(not torch.equal(trained[key], value) for key, value in wanted.items())
