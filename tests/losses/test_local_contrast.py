"""AMDIM's contrast of places."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.local_contrast import clipped_cross_entropy, local_nce, tanh_clip


def test_of_two_orthogonal_images_by_hand() -> None:
    # D = 4, so a product of 2 is a score of 1: the positive has 1, the only negative (the other image) 0.
    x = math.sqrt(2) * torch.eye(4)[:2]
    share, penalty = local_nce(x, x[:, :, None], 0, clip=None, penalty=0.5)
    assert share.tolist() == [[pytest.approx(1 - math.log(1 + math.e))]] * 2
    assert penalty.item() == pytest.approx(0.5 * 2 / 4)  # two scores of 1 among four


def test_equals_the_paper_as_loops() -> None:
    torch.manual_seed(0)
    source, targets = torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 3, 5, dtype=torch.float64)
    share, _ = local_nce(source, targets, 1, clip=2.0)
    for i in range(2):
        raw = [[float(source[i] @ targets[n, :, p]) / math.sqrt(3) for p in range(5)] for n in range(4)]
        scores = [[2 * math.tanh(x / 2) for x in row] for row in raw]
        others = sum(math.exp(s) for n in range(4) if n != 1 + i for s in scores[n])
        for p in range(5):
            own = scores[1 + i][p]
            assert share[i, p].item() == pytest.approx(own - math.log(math.exp(own) + others), rel=1e-12)


def test_other_places_of_the_own_image_do_not_matter() -> None:
    source, targets = torch.randn(2, 3), torch.randn(2, 3, 4)
    changed = targets.clone()
    changed[0, :, 1:] += 5.0
    before, after = local_nce(source, targets, 0)[0], local_nce(source, changed, 0)[0]
    assert torch.equal(before[0, 0], after[0, 0]) and not torch.equal(before[1], after[1])


def test_the_limit() -> None:
    assert tanh_clip(torch.tensor([1e6, 0.01]), 10.0).tolist() == [pytest.approx(10.0), pytest.approx(0.01, rel=1e-5)]
    assert tanh_clip(torch.tensor([1e6]), None).item() == 1e6


def test_a_row_without_label_counts_as_zero() -> None:
    logits = torch.zeros(4, 2)
    loss = clipped_cross_entropy(logits, torch.tensor([0, 1, -1, -1]))
    assert loss.item() == pytest.approx(math.log(2) / 2)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="local_nce: rows 2 to 4 do not lie inside 3 targets; offset is rank"):
        local_nce(torch.ones(2, 1), torch.ones(3, 1, 1), 2)
    with pytest.raises(ValueError, match="negatives are the other images of the batch; got 1 image, wanted 2 or more"):
        local_nce(torch.ones(1, 1), torch.ones(1, 1, 1), 0)
