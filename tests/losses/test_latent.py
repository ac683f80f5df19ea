"""Latent targets and their distance, as loops and by hand."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.losses.latent import latent_regression, latent_targets


def test_targets_are_normalised_tokens_block_by_block():
    tokens = torch.randn(2, 6, 4, dtype=torch.float64)
    places = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [1, 0]], [[3, 3], [5, 2]]])  # 3 blocks, 2 images, 2 places
    found = latent_targets(tokens, places, repeat=2).view(3, 2, 2, 2, 4)
    for block in range(3):
        for context in range(2):
            for image in range(2):
                for i in range(2):
                    token = tokens[image, places[block, image, i]]
                    wanted = (token - token.mean()) / (token.var(correction=0) + 1e-5).sqrt()
                    torch.testing.assert_close(found[block, context, image, i], wanted)


def test_no_gradient_reaches_the_teacher():
    tokens = torch.randn(1, 2, 4, requires_grad=True)
    assert not latent_targets(tokens, torch.zeros(1, 1, 1, dtype=torch.int64)).requires_grad


def test_both_distances_by_hand():
    p, t = torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2)
    assert latent_regression(p, t).item() == pytest.approx((0.5**2 / 2 + (3 - 0.5)) / 2)  # quadratic up to 1
    assert latent_regression(p, t, "l2").item() == pytest.approx((0.25 + 9) / 2)
