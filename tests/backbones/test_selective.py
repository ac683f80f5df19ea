"""SimCLR v2's networks: sizes of the paper's Table 1, stems, maps, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.backbones.image.selective import resnet_sk
from ssl_zoo.errors import ConfigError


@pytest.mark.parametrize(
    ("depth", "width", "selective", "millions"),
    [(50, 1, False, 24), (50, 1, True, 35), (50, 2, True, 140), (101, 1, True, 65), (152, 3, True, 795)],
)
def test_parameters_are_those_of_the_papers_table(depth, width, selective, millions):
    with torch.device("meta"):
        net = resnet_sk(depth=depth, width=width, selective=selective)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions
    assert net.out_features == 2048 * width


def test_a_small_stem_keeps_32_pixels_until_the_second_stage():
    net = resnet_sk(image_size=32, stem="small").eval()
    view = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = net.forward_maps(view)
        assert [tuple(m.shape[1:]) for m in maps] == [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]
        torch.testing.assert_close(net(view), maps[-1].mean((2, 3)))


def test_a_selective_kernel_has_at_least_32_inner_channels():
    with torch.device("meta"):
        net = resnet_sk(width=3).net
    inner = [stage[0].conv2.attn.fc_reduce.out_channels for stage in (net.layer1, net.layer2, net.layer3, net.layer4)]
    assert inner == [32, 32, 48, 96]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"depth": 34}, "backbone.depth=34: SimCLR v2's networks have 50, 101, 152 layers"),
        ({"width": 0}, "backbone.width=0: wanted a factor of every width"),
        ({"stem": "smal"}, "backbone.stem=smal: did you mean 'small'"),
        ({"image_size": 16}, "wanted at least 32 x 32"),
    ],
)
def test_what_does_not_exist_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        resnet_sk(**wrong)
