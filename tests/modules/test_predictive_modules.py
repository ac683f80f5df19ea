"""What a place or a time may know: the PixelCNN, predictors of steps, and AMDIM's embedding block."""

from __future__ import annotations

import torch

from ssl_zoo.modules.embedding_block import EmbeddingBlock
from ssl_zoo.modules.pixel_cnn import PixelCNN
from ssl_zoo.modules.step_predictors import StepPredictors


def test_a_place_knows_nothing_of_the_rows_below() -> None:
    torch.manual_seed(0)
    net, z = PixelCNN(3, hidden=4, blocks=2), torch.randn(1, 3, 6, 5)
    below = z.clone()
    below[:, :, 3:] += 1.0
    changed = (net(z) != net(below)).any(1)[0]  # [6, 5]
    assert not changed[:3].any() and changed[3:].any(1).all()


def test_the_row_above_the_first_is_one() -> None:
    net, z = PixelCNN(1, hidden=1, blocks=1).double(), torch.zeros(1, 1, 2, 3).double()
    for p in net.parameters():
        torch.nn.init.ones_(p)
    for layer in (0, 2, 4, 6):
        torch.nn.init.zeros_(net.blocks[0][layer].bias)
    # Of zeros, only the row of ones on top reaches the first row: 1 (border columns too, but for the zeros beside it).
    assert net(z)[0, 0].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_predictors_see_only_times_with_all_later_frames() -> None:
    net = StepPredictors(2, 3, steps=4)
    assert [p.shape for p in net(torch.randn(5, 9, 2))] == [(5, 5, 3)] * 4
    assert all((layer.weight[2:] == 0).all() and (layer.weight[:2] != 0).all() for layer in net)


def test_an_embedding_block_starts_near_the_normalised_map() -> None:
    torch.manual_seed(0)
    block, x = EmbeddingBlock(4, 6), torch.randn(64, 4, 3, 3)
    out = block(x)
    assert out.shape == (64, 6, 3, 3)
    normalised = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(out[:, :4], normalised, rtol=0, atol=0.2)
    assert EmbeddingBlock(4, 2)(x).shape == (64, 2, 3, 3) and len(EmbeddingBlock(4, 2, norm=True).residual) == 4
