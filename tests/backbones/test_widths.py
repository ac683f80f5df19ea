"""ResNets of other widths and shortcuts: sizes as published, blocks by hand, messages."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssl_zoo.backbones.image import resnet18, widths
from ssl_zoo.backbones.image.wide_resnet import WideBlock
from ssl_zoo.errors import ConfigError


@pytest.mark.parametrize(("depth", "parameters"), [(16, 703_284), (40, 2_255_156)])
def test_wide_resnets_have_the_published_numbers_of_parameters(depth, parameters):
    classifier = 128 * 100 + 100  # of CIFAR-100, which the published 0.7 and 2.2 million count
    backbone = getattr(widths, f"wrn_{depth}_2")()
    assert sum(p.numel() for p in backbone.parameters()) + classifier == parameters
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


def test_a_wide_block_normalises_before_it_convolves():
    block, x = WideBlock(4, 8, 2).eval(), torch.randn(2, 4, 6, 6)
    active = F.relu(block.bn1(x))
    inner = F.relu(block.bn2(F.conv2d(active, block.conv1.weight, stride=2, padding=1)))
    branch = F.conv2d(inner, block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), branch + F.conv2d(active, block.shortcut.weight, stride=2))


def test_the_last_map_of_a_wide_resnet_is_what_it_pools():
    backbone = widths.wrn_16_2().eval()
    view = torch.randn(2, 3, 32, 32)
    maps = backbone.forward_maps(view)
    assert [list(x.shape[1:]) for x in maps] == [[32, 32, 32], [64, 16, 16], [128, 8, 8]]
    torch.testing.assert_close(maps[-1].mean((2, 3)), backbone(view))


def test_a_wide_resnet_has_no_stem_for_large_images():
    with pytest.raises(ConfigError, match="backbone.stem=standard of 'wrn_16_2': a network for small images; set"):
        widths.wrn_16_2(stem="standard")


def test_half_a_resnet_keeps_the_stem():
    with torch.device("meta"):
        backbone = widths.resnet50_half(image_size=224, zero_init_residual=False)
        assert backbone(torch.empty(2, 3, 224, 224)).shape == (2, 1024)
    assert backbone.net.conv1.out_channels == 64
    assert [backbone.net.get_submodule(f"layer{i}.0.conv1").out_channels for i in (1, 2, 3, 4)] == [32, 64, 128, 256]


def test_a_projected_resnet_has_one_more_shortcut_than_torchvisions():
    ours, theirs = widths.resnet18_projected(image_size=32, stem="small"), resnet18(image_size=32, stem="small")
    more = ours.net.state_dict().keys() - theirs.net.state_dict().keys()
    assert {name.rpartition(".")[0] for name in more} == {"layer1.0.downsample.0", "layer1.0.downsample.1"}
    assert ours(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    assert not ours.net.layer1[0].bn2.weight.any() and ours.net.layer1[0].downsample[1].weight.all()
