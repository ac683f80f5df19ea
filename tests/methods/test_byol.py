"""BYOL's ablations, without predictor and without batch statistics; and how its teacher starts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_zoo.backbones.image.tiny import resnet8
from ssl_zoo.errors import ConfigError
from ssl_zoo.losses.regression import cosine_regression
from ssl_zoo.methods.byol import BYOL
from ssl_zoo.modules.heads import MLP
from tests.golden.harness import no_recipe
from tests.helpers import tiny_batch, tiny_method


def test_without_a_predictor_the_projection_itself_is_compared() -> None:
    method = tiny_method("byol", ["method.predictor=null"], dtype=torch.float64)
    batch = tiny_batch([16, 16], dtype=torch.float64)
    z = [method.projector(method.backbone(view)) for view in batch.views]
    t = [method.teacher(view) for view in batch.views]
    wanted = cosine_regression(z[0], t[1]) + cosine_regression(z[1], t[0])
    out = method.training_loss(batch)
    torch.testing.assert_close(out["loss"], wanted)
    torch.testing.assert_close(out["embeddings"], z[0])
    assert not any(name.startswith("predictor") for name, _ in method.named_parameters())


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_batch_norm_an_image_is_learned_from_by_itself(norm: str) -> None:
    words = ["backbone=resnet8_gn_ws", "backbone.width=8", "backbone.zero_init_residual=false"]
    heads = [f"method.{head}.norm={norm}" for head in ("projector", "predictor")]
    method = tiny_method("byol", [*words, *heads], dtype=torch.float64, tiny=False)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
    batch = tiny_batch([16, 16], dtype=torch.float64)
    whole = method.training_loss(batch)["loss"]
    rows = []
    for i in range(8):
        one = tiny_batch([16, 16], dtype=torch.float64)
        one.views = [view[i : i + 1] for view in batch.views]
        rows.append(method.training_loss(one)["loss"])
    torch.testing.assert_close(whole, torch.stack(rows).mean())  # the loss of a batch is that of its images


def spreads(net: nn.Module) -> dict[str, float]:
    return {name: float(p.detach().std()) if p.numel() > 1 else 0.0 for name, p in net.named_parameters()}


@pytest.mark.parametrize("backbone", [
    ["backbone=resnet8", "backbone.width=16"],
    ["backbone=vit_mini", "backbone.positions=sincos", "backbone.start=xavier"],
])  # fmt: skip
def test_a_redrawn_teacher_starts_as_its_network_starts(backbone: list[str]) -> None:
    # Layers that are drawn by themselves have half of the spread in a ResNet, and torch's start in a transformer.
    method = tiny_method("byol", [*backbone, "method.redraw_teacher=true"], tiny=False)
    student = nn.Sequential(method.backbone, method.projector)
    drawn, own = spreads(student), spreads(method.teacher.net)
    large = {name for name, p in student.named_parameters() if p.numel() > 500}
    assert {name: own[name] for name in large} == pytest.approx({name: drawn[name] for name in large}, rel=0.2)
    pairs = zip(student.named_parameters(), method.teacher.net.parameters(), strict=True)
    equal = {name for (name, p), t in pairs if torch.equal(p, t)}
    assert equal == {name for name, p in student.named_parameters() if not drawn[name] or "pos_embed" in name}


def test_a_student_from_weights_has_a_teacher_equal_to_it(tmp_path: Path) -> None:
    start = tiny_method("simclr", ["backbone=resnet8", "backbone.width=8"], tiny=False)
    torch.save(start.backbone.net.state_dict(), tmp_path / "weights.pt")
    words = ["backbone=resnet8", "backbone.width=8", f"backbone.weights={tmp_path / 'weights.pt'}"]
    method = tiny_method("byol", [*words, "method.redraw_teacher=true"], tiny=False)
    assert torch.equal(method.backbone.net.conv1.weight, start.backbone.net.conv1.weight)
    student = nn.Sequential(method.backbone, method.projector).state_dict()
    assert all(torch.equal(value, student[name]) for name, value in method.teacher.net.state_dict().items())


def test_a_backbone_that_nobody_can_build_again_is_refused() -> None:
    with pytest.raises(ConfigError, match="backbone 'resnet8' cannot be drawn anew, because no configuration built it"):
        BYOL(resnet8(), no_recipe(), *[partial(MLP, hidden=[8], out_features=4)] * 2)
