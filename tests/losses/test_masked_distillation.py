"""Distillation of hidden patches and of crops: by hand, as loops, and against DINO's mean."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_zoo.losses.masked_distillation import crop_distillation, masked_distillation, summed_distillation
from ssl_zoo.losses.self_distillation import self_distillation
from ssl_zoo.modules.masking.block import masked_patches


def test_indifferent_students_lose_ln_k_for_each_image_with_hidden_patches():
    # Image 0 hides two patches, image 1 none, image 2 one: two of three images count ln 4 each.
    _, counts = masked_patches(torch.tensor([[True, True], [False, False], [False, True]]))
    targets = torch.eye(4)[:3]
    loss = masked_distillation(torch.zeros(3, 4), targets, counts, images=3, student_temperature=0.1)
    assert loss.item() == pytest.approx(2 / 3 * math.log(4))


def test_hidden_patches_equal_the_papers_sums():
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.rand(2, 5, 6, 4, generator=generator, dtype=torch.float64)
    masks = torch.rand(5, 6, generator=generator) < 0.4
    index, counts = masked_patches(masks)
    got = masked_distillation(scores.flatten(0, 1)[index], targets.flatten(0, 1)[index], counts, 5, 0.2)
    wanted = 0.0
    for image in range(5):
        hidden = masks[image].nonzero().flatten().tolist()
        for patch in hidden:
            log_p = (scores[image, patch] / 0.2).log_softmax(0)
            wanted -= (targets[image, patch] * log_p).sum().item() / len(hidden) / 5
    assert got.item() == pytest.approx(wanted, rel=1e-9)


def test_nothing_hidden_is_a_loss_of_zero_with_a_gradient():
    scores = torch.zeros(0, 4, requires_grad=True)
    loss = masked_distillation(scores, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3, 0.1)
    loss.backward()
    assert loss.item() == 0 and scores.grad is not None


def test_pairs_of_crops_add_up_to_dinos_mean():
    generator = torch.Generator().manual_seed(0)
    s = [torch.randn(3, 5, generator=generator) for _ in range(4)]
    p = [torch.randn(3, 5, generator=generator).softmax(1) for _ in range(2)]
    terms = crop_distillation(s, p, 0.1)
    torch.testing.assert_close(terms["global"] + terms["local"], self_distillation(s, p, 0.1))
    torch.testing.assert_close(terms["local"], summed_distillation(s[2:], p, 0.1) / 6)


def test_without_local_crops_indifferent_students_lose_two_thirds_of_ln_k():
    terms = crop_distillation([torch.zeros(3, 4)] * 2, [torch.eye(4)[:3]] * 2, 0.1)
    assert terms.keys() == {"global"} and terms["global"].item() == pytest.approx(2 / 3 * math.log(4))
