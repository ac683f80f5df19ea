"""What counts as a block of a network, by number and by kind."""

from __future__ import annotations

import pytest
from torch import nn

from ssl_zoo.backbones import image
from ssl_zoo.backbones.blocks import blocks


@pytest.mark.parametrize(("build", "kind", "number"), [
    (lambda: image.resnet50(), "Bottleneck", 16),
    (lambda: image.timm_model("resnet18"), "BasicBlock", 8),
    (lambda: image.vit_tiny(), "Block", 12),
    (lambda: image.convnext_tiny(), "ConvNeXtBlock", 18),
    (lambda: image.torchvision_model("convnext_tiny"), "CNBlock", 18),
    (lambda: image.torchvision_model("vit_b_32"), "EncoderBlock", 12),
])  # fmt: skip
def test_a_block_is_a_residual_or_transformer_block(build, kind, number) -> None:
    found = blocks(build())
    assert {type(block).__name__ for block in found} == {kind} and len(found) == number


def test_a_chain_of_layers_has_none() -> None:
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == []
