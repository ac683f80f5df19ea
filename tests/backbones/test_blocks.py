"""What counts as a block of a network, by number and by kind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import nn

from ssl_zoo.backbones import image
from ssl_zoo.backbones.blocks import blocks


@pytest.mark.parametrize(("build", "kinds"), [
    (lambda: image.resnet50(), {"Bottleneck": 16}),
    (lambda: image.timm_model("resnet18"), {"BasicBlock": 8}),
    (lambda: image.vit_tiny(), {"Block": 12}),
    (lambda: image.convnext_tiny(), {"ConvNeXtBlock": 18}),
    # A stem and three steps between stages are pairs of layers there, in line with the stages.
    (lambda: image.torchvision_model("convnext_tiny"), {"CNBlock": 18, "Conv2dNormActivation": 1, "Sequential": 3}),
    (lambda: image.torchvision_model("vit_b_32"), {"EncoderBlock": 12}),
])  # fmt: skip
def test_a_block_is_a_residual_or_transformer_block(build: Any, kinds: dict[str, int]) -> None:
    assert Counter(type(block).__name__ for block in blocks(build())) == kinds


def test_a_chain_of_layers_has_none() -> None:
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
