"""Rotation: which directions, which classes, what is refused; and which map of a network is judged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from ssl_zoo import build, config
from ssl_zoo.backbones.image.nin import nin
from ssl_zoo.callbacks.observe import batch_features
from ssl_zoo.errors import ConfigError
from tests.helpers import tiny_batch, tiny_method, view_sizes


def test_the_loss_is_the_mean_over_all_directions() -> None:
    method = tiny_method("rotation").double()
    batch = tiny_batch(view_sizes("rotation"))
    view = batch.views[0] = batch.views[0].double()
    rows = torch.stack([torch.rot90(view, k, (2, 3)) for k in range(4)], 1).flatten(0, 1)
    logits = method.classifier(copy.deepcopy(method.backbone)(rows))
    wanted = torch.nn.functional.cross_entropy(logits, torch.arange(4).repeat(len(view)))
    found = method.training_loss(batch)
    torch.testing.assert_close(found["loss"], wanted)
    assert found["features"].shape == (len(view), method.backbone.out_features)


def test_drawn_directions_are_those_of_the_view() -> None:
    method = tiny_method("rotation", ["method.rotations=drawn", "augmentation=rotation/large"])
    batch = tiny_batch(view_sizes("rotation"))
    turns = torch.arange(len(batch.views[0])) % 4
    batch.extra["0/image/rotate90/turns"] = turns
    found = method.training_loss(batch)
    wanted = torch.nn.functional.cross_entropy(method.classifier(method.backbone(batch.views[0])), turns)
    torch.testing.assert_close(found["loss"], wanted)
    assert "features" not in found  # the views do not stand upright


@pytest.mark.parametrize(("words", "told"), [
    (["augmentation=rotation/large"],
     "method.rotations=all: the view has image/rotate90 among its operations; set method.rotations=drawn"),
    (["method.rotations=drawn"],
     "method.rotations=drawn: the view lacks image/rotate90 among its operations; set method.rotations=all"),
])  # fmt: skip
def test_directions_that_do_not_fit_the_views_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build.check_signatures(config.load(["method=rotation", *words]))


def middle(method: object, view: Tensor, number: int) -> Tensor:
    return method.backbone.forward_maps(view)[number].mean((2, 3))  # type: ignore[attr-defined]


def test_a_middle_map_is_what_probes_and_knn_read() -> None:
    method = tiny_method("simclr", ["judged_map=-2"]).eval()
    batch = tiny_batch(view_sizes("simclr"))
    wanted = middle(method, batch.views[0], -2)
    torch.testing.assert_close(method.embed(batch.views[0]), wanted)
    torch.testing.assert_close(batch_features(method, {"features": torch.zeros(1)}, batch), wanted)


@pytest.mark.parametrize(("words", "told"), [
    (["method=simclr", "judged_map=-4"], "judged_map=-4: backbone 'resnet8' has 3 maps, counted from the end: wanted "
                                         "-1 .the last. to -3"),
    (["method=simclr", "judged_map=1"], "judged_map=1: wanted a whole number below 0"),
    (["method=simclr", "judged_map=half"], "judged_map=half: wanted a whole number below 0"),
    (["method=simclr", "judged_map=-1", "backbone=vit_mini"], "backbone 'vit_tiny_patch16_224' has no feature maps; these have: resnet8"),
    (["method=emp_ssl", "judged_map=-2"], "judged_map=-2: the features of EMPSSL are not those of one network alone"),
])  # fmt: skip
def test_maps_that_there_are_not_are_refused(words: list[str], told: str) -> None:
    name, *rest = words
    with pytest.raises(ConfigError, match=told):
        tiny_method(name.removeprefix("method="), rest, tiny=False)


def test_network_in_network_has_a_map_for_each_block() -> None:
    net = nin()
    maps = net.forward_maps(torch.zeros(2, 3, 32, 32))
    assert [tuple(found.shape[1:]) for found in maps] == [(96, 16, 16), (192, 8, 8), (192, 8, 8), (192, 8, 8)]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 192)
    with pytest.raises(ValueError, match="backbone.blocks=2: a Network in Network has three blocks or more"):
        nin(blocks=2)
    with pytest.raises(ConfigError, match="backbone.stem=standard of 'nin': a network for small images"):
        nin(stem="standard")
