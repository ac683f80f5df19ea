"""Networks of AMDIM and CPC v2: published sizes, blocks by hand, what their places see, messages."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ssl_zoo.backbones.image.amdim_encoder import ConvResidual, amdim_encoder
from ssl_zoo.backbones.image.convnet import Staged
from ssl_zoo.backbones.image.cpc_resnet import LayerNormBottleneck, cpc_resnet101
from ssl_zoo.backbones.image.tiny import resnet8
from ssl_zoo.errors import ConfigError


def test_the_largest_amdim_encoder_has_the_published_number_of_parameters():
    with torch.device("meta"):
        backbone = amdim_encoder(ndf=320, n_rkhs=2560, n_depth=10)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6) == 626  # README of Philip-Bachman/amdim-public


@pytest.mark.parametrize("size", [32, 64, 128])
def test_amdim_maps_have_the_sides_that_are_compared(size):
    backbone = amdim_encoder(image_size=size, ndf=4, n_rkhs=8, n_depth=2).eval()
    maps = backbone.forward_maps(x := torch.randn(2, 3, size, size))
    assert [found.shape[2] for found in maps] == [7, 5, 3, 1] and backbone(x).shape == (2, 8)
    torch.testing.assert_close(backbone(x), maps[-1].flatten(1))


def seen_by(backbone: Staged, size: int, level: int, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last row and column of the pixels that a place of a map depends on."""
    view = torch.randn(1, 3, size, size).double().requires_grad_()
    x = view
    for stage in backbone.double().stages()[: level + 1]:
        x = stage(x)
    x[0, :, place[0], place[1]].square().sum().backward()
    rows, columns = (view.grad.abs().sum((0, 1, axis)) > 0 for axis in (3, 2))
    return (*rows.nonzero()[[0, -1]].flatten().tolist(), *columns.nonzero()[[0, -1]].flatten().tolist())


@pytest.mark.parametrize(("size", "window"), [(32, 8), (64, 16)])
def test_amdim_places_see_windows_of_one_size_and_no_padding(size, window):
    """Places of the 7 x 7 map see squares of pixels of the same size at the borders as inside: nothing is cut off."""
    backbone = amdim_encoder(image_size=size, ndf=4, n_rkhs=8, n_depth=2)
    step = size // 8
    for row, column in ((0, 0), (3, 3), (0, 6), (6, 6)):
        first_row, last_row, first_column, last_column = seen_by(backbone, size, 0, (row, column))
        assert (first_row, first_column) == (row * step, column * step)
        assert (last_row - first_row + 1, last_column - first_column + 1) == (window, window)
    assert seen_by(backbone, size, 3, (0, 0)) == (0, 6 * step + window - 1) * 2


@pytest.mark.parametrize("size", [32, 64, 128])
def test_amdim_maps_of_an_image_of_one_colour_are_of_one_colour(size):
    """Zeros of a padding would be seen at the borders; the stem for 128 pixels mirrors the image instead."""
    backbone = amdim_encoder(image_size=size, ndf=4, n_rkhs=8, n_depth=2).double()
    for module in backbone.modules():  # blocks start as averages, which see nothing of their own kernels
        if isinstance(module, ConvResidual):
            torch.nn.init.normal_(module.conv2.weight)
    view = torch.tensor([0.9, 0.2, -0.4]).double()[None, :, None, None].expand(1, 3, size, size)
    maps = backbone.forward_maps(view)
    assert [found.shape[2] for found in maps] == [7, 5, 3, 1]
    for found in maps:
        torch.testing.assert_close(found, found.mean((2, 3), keepdim=True).expand_as(found), rtol=1e-9, atol=1e-9)
    resnet = resnet8(width=8).double().forward_maps(view)[0]
    assert (resnet - resnet.mean((2, 3), keepdim=True)).abs().max() > 1e-3


def test_amdim_places_of_the_stem_for_128_pixels_mirror_two_pixels_and_no_more():
    backbone = amdim_encoder(ndf=4, n_rkhs=8, n_depth=2)
    padded = [module for module in backbone.modules() if isinstance(module, torch.nn.Conv2d) and any(module.padding)]
    assert [(module.padding, module.padding_mode) for module in padded] == [((2, 2), "reflect")]


WIDTHS = [(128, 1024, 3), (192, 1536, 8), (256, 2048, 10), (320, 2560, 10)]


@pytest.mark.parametrize(("ndf", "n_rkhs", "n_depth"), WIDTHS)
def test_amdim_widths_of_the_authors_commands_and_published_weights(ndf, n_rkhs, n_depth):
    """A group narrows nothing: 2, 4 and 8 times ``ndf``, then the features."""
    with torch.device("meta"):
        backbone = amdim_encoder(ndf=ndf, n_rkhs=n_rkhs, n_depth=n_depth)
        maps = backbone.forward_maps(torch.empty(1, 3, 128, 128))
    assert [found.shape[1] for found in maps] == [8 * ndf, 8 * ndf, 8 * ndf, n_rkhs] and backbone.out_features == n_rkhs
    assert {len(group) for group in backbone.net.to7[-3:]} == {n_depth} == {len(backbone.net.to5)}


def test_an_amdim_block_starts_as_the_average_of_what_it_sees():
    block, x = ConvResidual(4, 6, 2, 2), torch.randn(2, 4, 8, 8)
    wanted = torch.cat([F.avg_pool2d(x, 2), torch.zeros(2, 2, 4, 4)], 1)
    torch.testing.assert_close(block(x), wanted)
    torch.nn.init.ones_(block.conv2.weight)
    branch = F.relu(F.conv2d(x, block.conv1.weight, stride=2)).sum(1, keepdim=True)
    torch.testing.assert_close(block(x), wanted + branch)
    narrow = ConvResidual(6, 4, 3, 1)
    torch.testing.assert_close(narrow(y := torch.randn(2, 6, 5, 5)), narrow.shortcut(y))


def test_an_amdim_encoder_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"got images of 96 px, .* for 32, 64, 128; set data.image_size=64"):
        amdim_encoder(image_size=96)


def test_a_cpc_block_normalises_over_channels_and_places():
    block, x = LayerNormBottleneck(4, 2, 6, 2, 5).eval(), torch.randn(2, 4, 5, 5)
    out = F.relu(F.layer_norm(F.conv2d(x, block.conv1.weight), [2, 5, 5]))
    out = F.relu(F.layer_norm(F.conv2d(out, block.conv2.weight, stride=2, padding=1), [2, 3, 3]))
    out = F.layer_norm(F.conv2d(out, block.conv3.weight), [6, 3, 3])
    short = F.layer_norm(F.conv2d(x, block.downsample[0].weight, stride=2), [6, 3, 3])
    torch.testing.assert_close(block(x), F.relu(out + short))


def test_the_cpc_network_sees_patches_of_one_size():
    with torch.device("meta"):
        backbone = cpc_resnet101(image_size=128, patch=0.25)
        assert backbone(torch.empty(2, 3, 32, 32)).shape == (2, 2048)
    # Convolutions of 3, 4, 46 and 3 blocks, and two numbers of each place of every norm.
    assert sum(p.numel() for p in backbone.parameters()) == 328_263_872
    with pytest.raises(ConfigError, match="takes only the size it was built for, 32 x 32"):
        backbone(torch.empty(2, 3, 128, 128))


def test_cpc_sizes_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="backbone.patch=2 of 'cpc_resnet101': wanted a share of the image, at most"):
        cpc_resnet101(patch=2)
    with pytest.raises(ConfigError, match=r"backbone.depths=\[3, 4\] of 'cpc_resnet101': wanted 4 numbers of blocks"):
        cpc_resnet101(depths=[3, 4])
