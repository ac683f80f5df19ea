"""The predictor: each target block alone, from each context block, by place."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.modules.token_predictor import TokenPredictor

GRID = (3, 3)


def built() -> TokenPredictor:
    torch.manual_seed(0)
    return TokenPredictor(6, width=8, depth=2, heads=2).double()


def test_every_target_block_is_predicted_alone_from_every_context_block():
    predictor = built()
    context = torch.tensor([[[0, 1], [3, 4]], [[2, 5], [6, 7]]])  # 2 blocks, 2 images
    targets = torch.tensor([[[8], [8]], [[4], [2]], [[6], [0]]])  # 3 blocks
    tokens = torch.randn(4, 2, 6, dtype=torch.float64)
    found = predictor(tokens, context, targets, GRID).view(3, 2, 2, 1, 6)
    for p in range(3):
        for e in range(2):
            for b in range(2):
                token = tokens.view(2, 2, 2, 6)[e, b][None]
                alone = predictor(token, context[e, b][None, None], targets[p, b][None, None], GRID)
                torch.testing.assert_close(found[p, e, b], alone[0])


def test_the_place_is_told_by_its_position():
    predictor = built()
    tokens, context = torch.randn(1, 2, 6, dtype=torch.float64), torch.tensor([[[0, 1]]])
    there, here = (predictor(tokens, context, torch.tensor([[[place]]]), GRID) for place in (5, 8))
    assert (there - here).abs().max() > 1e-6


def test_it_starts_with_a_deviation_of_a_fiftieth():
    predictor = TokenPredictor(64, width=64, depth=1, heads=2)
    assert predictor.predictor_blocks[0].mlp.fc2.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not predictor.predictor_proj.bias.any() and predictor.mask_token.any()


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="predictor.width=20 wants a multiple of 4 and of predictor.heads=3"):
        TokenPredictor(8, width=20, heads=3)
