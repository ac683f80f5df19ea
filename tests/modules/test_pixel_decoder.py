"""MAE's decoder: where mask tokens go, positions of other sizes, its start."""

import pytest
import torch
from torch import nn

from ssl_zoo.backbones.base import Tokens
from ssl_zoo.backbones.image.vision_transformer import sincos_positions
from ssl_zoo.modules.masking.random import random_masking
from ssl_zoo.modules.pixel_decoder import PixelDecoder


def decoder(**sizes):
    torch.manual_seed(0)
    return PixelDecoder(6, 2, 3, (2, 3), **{"width": 8, "depth": 1, "heads": 2, **sizes})


def test_kept_patches_return_to_their_places_and_mask_tokens_fill_the_rest():
    net = decoder(width=12, depth=0)
    net.embed = net.norm = net.pred = nn.Identity()
    tokens, noise = torch.randn(1, 6, 12), torch.tensor([[0.6, 0.2, 0.5, 0.0, 0.3, 0.4]])
    masking = random_masking(noise, 0.5)  # patches 3, 1 and 4 stay
    kept = tokens.gather(1, masking.keep.unsqueeze(-1).expand(-1, -1, 12))
    out = net(Tokens(torch.randn(1, 12), kept, (2, 3)), masking.restore) - net.positions
    for i in range(6):
        wanted = tokens[0, i] if i in (1, 3, 4) else net.mask_token[0, 0]
        torch.testing.assert_close(out[0, i], wanted)


def test_it_paints_all_patches_with_and_without_class_token():
    net, restore = decoder(), random_masking(torch.rand(4, 6), 0.5).restore
    kept = torch.randn(4, 3, 6)
    with_class = net(Tokens(torch.randn(4, 6), kept, (2, 3)), restore)
    without = net(Tokens(None, kept, (2, 3)), restore)
    assert with_class.shape == without.shape == (4, 6, 12) and not torch.equal(with_class, without)


def test_positions_of_another_grid_are_made_anew_and_none_are_saved():
    net = decoder()
    torch.testing.assert_close(net.places((4, 2)), sincos_positions((4, 2), 8, columns_first=True))
    assert net.places((2, 3)) is net.positions and "positions" not in net.state_dict()


def test_it_starts_as_the_authors():
    net = decoder(width=256)
    layer = net.blocks[0].mlp.fc1
    assert layer.weight.abs().max().item() == pytest.approx((6 / (256 + 1024)) ** 0.5, rel=1e-3)
    assert not layer.bias.any() and net.mask_token.std().item() == pytest.approx(0.02, rel=0.15)


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="width=18 must be a multiple of 4 .* and of heads=3"):
        decoder(width=18, heads=3)
