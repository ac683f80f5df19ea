"""ResNets without batch statistics; features of places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

from ssl_zoo.backbones import image
from ssl_zoo.backbones.image import tiny
from ssl_zoo.backbones.image.batch_free import StandardisedConv2d, resnet8_gn_ws, resnet50_gn_ws
from ssl_zoo.errors import ConfigError


def test_a_standardised_convolution_is_timms() -> None:
    torch.manual_seed(0)
    ours, timms = StandardisedConv2d(3, 4, 3, padding=1, bias=False), StdConv2d(3, 4, 3, bias=False)
    timms.weight = ours.weight
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(ours(x), timms(x))
    # A filter of 1 and -1 has mean 0 and variance 1 already.
    ours.weight.data = torch.ones_like(ours.weight) * (-1.0) ** torch.arange(3)[None, :, None, None]
    assert not torch.allclose(ours(x), nn.functional.conv2d(x, ours.weight, padding=1))


@pytest.mark.parametrize("norm", ["group", "none"])
def test_an_image_is_seen_by_itself(norm: Any) -> None:
    backbone = resnet8_gn_ws(width=8, norm=norm, zero_init_residual=False).train()
    views = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(backbone(views)[:1], backbone(views[:1]), rtol=1e-4, atol=1e-5)
    kinds = {type(module) for module in backbone.modules()}
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert (nn.GroupNorm in kinds) == (norm == "group") and nn.Conv2d not in kinds


def test_groups_names_and_start() -> None:
    net = resnet8_gn_ws(width=24, stem="small").net
    assert (net.bn1.num_groups, net.bn1.num_channels) == (8, 24)  # the largest number that divides 24 and 16
    assert net.layer3[0].bn2.weight.abs().sum() == 0
    assert net.conv1.kernel_size == (3, 3) and isinstance(net.conv1, StandardisedConv2d)
    assert set(net.state_dict()) < set(tiny.resnet8(width=24).net.state_dict())


def test_it_can_be_built_again() -> None:
    origin = resnet8_gn_ws(width=8, norm="none", standardise=False).origin
    assert origin.name == "ssl_zoo.backbones.image.batch_free.resnet8_gn_ws"
    again = resnet8_gn_ws(**origin.arguments)
    assert not any(isinstance(module, (nn.GroupNorm, StandardisedConv2d)) for module in again.modules())
    wide = resnet50_gn_ws(image_size=32, stem="small")
    assert wide.out_features == 2048 and wide.net.layer4[0].bn3.num_groups == 16


@pytest.mark.parametrize(
    "factory",
    [
        lambda: tiny.resnet8(width=8, zero_init_residual=False),
        lambda: image.torchvision_model("resnet18", image_size=32, zero_init_residual=False),
        lambda: image.torchvision_model("convnext_tiny", image_size=32),
        lambda: image.timm_model("resnet18", image_size=32),
        lambda: image.timm_model("convnext_atto", image_size=32),
        lambda: tiny.vit_mini(embed_dim=16, num_heads=2, depth=2),
        lambda: tiny.vit_mini(embed_dim=16, num_heads=2, depth=2, global_pool="avg"),
    ],
    ids=["ours", "torchvision", "convnext", "timm", "timm-convnext", "vit", "vit-avg"],
)
def test_pooled_features_are_those_of_the_forward_pass(factory: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    backbone, view = factory().eval(), torch.randn(2, 3, 32, 32)
    dense = backbone.forward_dense(view)
    torch.testing.assert_close(dense.pooled, backbone(view))
    rows, columns = dense.grid
    assert dense.patches.shape == (2, rows * columns, dense.patches.shape[2])
    assert backbone.has_dense
    if backbone.has_maps:
        torch.testing.assert_close(dense.patches.mT.reshape(2, -1, rows, columns), backbone.forward_maps(view)[-1])


def test_a_network_without_them_says_which_have() -> None:
    backbone = image.timm_model("regnetx_002", image_size=32)
    with pytest.raises(ConfigError, match="'regnetx_002' has no dense features; these have: resnet8, resnet18"):
        backbone.forward_dense(torch.randn(1, 3, 32, 32))
