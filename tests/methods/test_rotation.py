"""RotNet: which way round, drawn rotations, and what is refused."""

import numpy as np
import pytest
import torch

from ssl_zoo.augmentations.rng import BatchRNG, RecordedRNG
from ssl_zoo.backbones.image.network_in_network import nin
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.quarter_turns import all_turns, turned
from tests.helpers import tiny_batch, tiny_method


def test_rotations_are_those_of_numpy_counter_clockwise():
    x = torch.randn(5, 3, 4, 4)
    turns = torch.tensor([3, 0, 1, 2, 1])
    for image, k, out, every in zip(x, turns, turned(x, turns), all_turns(x), strict=True):
        wanted = torch.from_numpy(np.rot90(image.numpy(), int(k), (1, 2)).copy())
        assert torch.equal(out, wanted) and torch.equal(every[k], wanted)


def test_drawn_rotations_depend_on_the_sample_alone_and_come_equally_often():
    method, view = tiny_method("rotation", ["method.turns=one"]), torch.randn(400, 3, 4, 4)
    slots = torch.arange(400)
    x, label = method.rotations(view, BatchRNG(0, 0, 0, slots))
    later, same = method.rotations(view[100:], BatchRNG(0, 0, 7, slots[100:]))
    assert x.shape == (400, 1, 3, 4, 4) and torch.equal(label[100:], same) and torch.equal(x[100:], later)
    assert all(75 < count < 125 for count in label.flatten().bincount(minlength=4).tolist())


def test_a_flip_behind_the_rotation_makes_one_turn_look_like_three():
    method, view = tiny_method("rotation", ["method.turns=one", "method.flip_after=0.5"]), torch.randn(2, 3, 4, 4)
    drawn = {"turns": {"turns": torch.tensor([[1], [1]])}, "flip": {"flip": torch.tensor([[0.4], [0.6]])}}
    x, label = method.rotations(view, RecordedRNG(sample=drawn))
    assert label.flatten().tolist() == [1, 1]
    assert torch.equal(x[0, 0], view[0].flip(-1).rot90(3, (1, 2))) and torch.equal(x[1, 0], view[1].rot90(1, (1, 2)))


def test_the_loss_is_the_mean_over_all_rotations_and_features_are_those_of_the_image_as_it_was():
    method, batch = tiny_method("rotation"), tiny_batch([16])
    method.eval()
    out = method.training_loss(batch)
    torch.testing.assert_close(out["features"], method.embed(batch.views[0]))
    losses = []
    for k in range(4):
        logits = method.classifier(method.backbone(batch.views[0].rot90(k, (2, 3))))
        losses.append(torch.nn.functional.cross_entropy(logits, torch.full((8,), k)))
    torch.testing.assert_close(out["loss"], torch.stack(losses).mean())
    assert "features" not in tiny_method("rotation", ["method.turns=one"]).training_loss(batch)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ConfigError, match=r"works on square images, and data.image_size is \[16, 32\]"):
        from ssl_zoo.data.image.source import image_info
        from ssl_zoo.methods.rotation import Rotation
        from tests.golden.harness import Identity, no_recipe

        Rotation(Identity(3), no_recipe(), image_info(4, None, (16, 32), 3, 4))


def test_the_authors_network_has_their_sizes_and_says_how_few_blocks_there_may_be():
    backbone = nin().eval()
    assert [tuple(x.shape[1:]) for x in backbone.forward_maps(torch.randn(1, 3, 32, 32))] == [
        (96, 16, 16), (192, 8, 8), (192, 8, 8), (192, 8, 8)]  # fmt: skip
    convolutions = sum(p.numel() for p in backbone.parameters() if p.ndim == 4)
    wanted = 3 * 192 * 25 + 192 * 160 + 160 * 96 + 96 * 192 * 25 + 2 * 192**2 + 2 * (192**2 * 9 + 2 * 192**2)
    assert convolutions == wanted
    assert backbone.net.blocks[0][0].weight.std().item() == pytest.approx((2 / (25 * 192)) ** 0.5, rel=0.05)
    with pytest.raises(ConfigError, match=r"backbone.blocks=2 of 'nin': wanted 3 or more"):
        nin(blocks=2)
