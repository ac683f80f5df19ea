"""``views_together``: whether the batch norms of a network see all views at once, or one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from ssl_zoo.data.image.source import image_info
from ssl_zoo.methods.dcl import DCL
from ssl_zoo.methods.deepcluster_v2 import DeepClusterV2
from ssl_zoo.methods.dino import DINO
from ssl_zoo.methods.invaspread import InvaSpread
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supcon import SupCon
from ssl_zoo.methods.swav import SwAV
from ssl_zoo.methods.w_mse import WMSE
from ssl_zoo.modules.dino_head import DINOHead
from tests.golden.harness import Identity, no_recipe
from tests.helpers import tiny_batch

INFO = image_info(samples=64, classes=4, image_size=8, channels=3, batch_size=8)
METHODS: dict[str, Callable[..., Any]] = {
    "simclr": partial(SimCLR, projector=Identity),
    "dcl": partial(DCL, projector=Identity),
    "invaspread": partial(InvaSpread, projector=Identity),
    "supcon": partial(SupCon, projector=Identity),
    "swav": partial(SwAV, data_info=INFO, projector=Identity, prototypes=4),
    "deepcluster_v2": partial(DeepClusterV2, data_info=INFO, projector=Identity, clusters=[4]),
    "dino": partial(DINO, projector=partial(DINOHead, hidden=[8], bottleneck=4, out_features=8)),
    "w_mse": partial(WMSE, data_info=INFO, projector=Identity, sub_batch=8),
}


class Normalised(nn.Sequential):
    """A network whose batch norm says how many rows came at a time."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out_features = 4
        self.rows: list[int] = []

    def forward(self, view: torch.Tensor) -> Any:
        self.rows.append(len(view))
        return super().forward(view)


def rows(name: str, together: bool | None, views: int = 2) -> list[int]:
    method = METHODS[name](Normalised(), no_recipe(), views_together=together)
    seen: list[int] = []
    method.projector.register_forward_hook(lambda module, inputs, out: seen.append(len(inputs[0])))
    method.training_loss(tiny_batch([8] * views))
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_two_views_of_eight_samples_pass_at_once_or_one_by_one(name: str) -> None:
    assert rows(name, True) == [16] and rows(name, False) == [8, 8]
    assert rows(name, None) == ([8, 8] if name == "dcl" else [16])  # as their authors do


def test_the_networks_and_the_teacher_see_what_the_heads_see() -> None:
    method = METHODS["dino"](Normalised(), no_recipe(), views_together=False)
    method.training_loss(tiny_batch([8, 8, 6]))
    assert method.backbone.rows == [8, 8, 8] and method.teacher.net.rows == [8, 8]


def test_apart_and_together_differ_by_their_statistics_alone() -> None:
    method, batch = METHODS["simclr"](Normalised().double(), no_recipe()), tiny_batch([8, 8], dtype=torch.float64)
    other = METHODS["simclr"](method.backbone, no_recipe(), views_together=False)
    losses = [m.training_loss(batch)["loss"].item() for m in (method, other)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    losses = [m.eval().training_loss(batch)["loss"].item() for m in (method, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
