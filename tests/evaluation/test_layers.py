"""Features of the last blocks of a transformer, side by side."""

import pytest
import torch

from ssl_zoo.backbones.image import tiny
from ssl_zoo.errors import ConfigError
from ssl_zoo.evaluation.layers import LastLayers


def vit(**arguments: object) -> tiny.ImageBackbone:
    torch.manual_seed(0)
    return tiny.vit_mini(embed_dim=16, depth=3, num_heads=2, **arguments).eval()  # type: ignore[arg-type]


def test_class_tokens_lie_side_by_side_and_the_last_is_the_networks_output() -> None:
    backbone, view = vit(), torch.rand(2, 3, 32, 32)
    features = LastLayers(backbone, 2).embed(view)
    middle = backbone.net.get_intermediate_layers(view, n=[1], norm=True, return_prefix_tokens=True)[0][1][:, 0]  # type: ignore[operator]
    torch.testing.assert_close(features, torch.cat([middle, backbone(view)], 1))
    assert LastLayers(vit(class_token=False, global_pool="avg"), 3).embed(view).shape == (2, 48)


def test_networks_that_cannot_are_named() -> None:
    with pytest.raises(ConfigError, match="layers=4: backbone '.*' has 1 to 3"):
        LastLayers(vit(), 4)
    with pytest.raises(ConfigError, match="layers=2 needs a vision transformer: backbone 'resnet8' has no tokens"):
        LastLayers(tiny.resnet8(), 2)
