"""Exemplar-CNN's networks: sizes as published, the authors' forward pass, images of other sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.backbones.image import exemplar_net
from ssl_zoo.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "channels", "features"), [("small", [64, 128, 256], 512), ("large", [92, 256, 512], 1024)]
)
def test_networks_have_the_published_layers(name, channels, features):
    with torch.device("meta"):
        backbone = getattr(exemplar_net, f"exemplar_{name}")()
    convolutions = [5 * 5 * a * b + b for a, b in zip([3, *channels], channels, strict=False)]
    dense = channels[-1] * 7 * 7 * features + features
    assert sum(p.numel() for p in backbone.parameters()) == sum(convolutions) + dense
    assert backbone.out_features == features


def test_a_view_of_32_pixels_passes_as_in_the_authors_code():
    backbone = exemplar_net.exemplar_small().eval()
    net, view = backbone.net, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x = F.max_pool2d(net.conv1(view).relu(), 3, 2)
    x = net.conv3(F.max_pool2d(net.conv2(x).relu(), 3, 2)).relu()
    assert x.shape[2:] == (7, 7)
    torch.testing.assert_close(backbone(view), F.linear(x.flatten(1), net.fc[0].weight, net.fc[0].bias).relu())
    maps = backbone.forward_maps(view)
    assert [list(part.shape[1:]) for part in maps] == [[64, 32, 32], [128, 15, 15], [256, 7, 7]]
    torch.testing.assert_close(maps[-1], x)
    torch.testing.assert_close(backbone.forward_dense(view).pooled, backbone(view))


def test_views_of_other_sizes_and_what_is_too_small():
    backbone = exemplar_net.exemplar_small(image_size=20, in_channels=2).eval()
    assert backbone(torch.zeros(1, 2, 96, 64)).shape == (1, 512)
    with pytest.raises(ConfigError, match="got 7 x 7 px, wanted at least 8 x 8"):
        backbone(torch.zeros(1, 2, 7, 7))
