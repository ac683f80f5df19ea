"""Which negatives are hard, and the points between them."""

import math

import torch

from ssl_zoo.losses.hard_mixing import hardest, mixed

KEYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])


def test_the_hardest_are_the_nearest_in_order():
    assert hardest(torch.tensor([[0.8, 0.6], [-1.0, 0.0]]), KEYS, 3).tolist() == [[3, 0, 1], [2, 1, 3]]


def test_halfway_between_orthogonal_points():
    point = mixed(KEYS[None, :1], KEYS[None, 1:2], torch.tensor([[0.5]]))
    torch.testing.assert_close(point, torch.full((1, 1, 2), math.sqrt(0.5)))


def test_the_weight_belongs_to_the_first():
    a, b = KEYS[None, :1], KEYS[None, 1:2]
    torch.testing.assert_close(mixed(a, b, torch.tensor([[1.0]])), a)
    torch.testing.assert_close(mixed(a, b, torch.tensor([[0.0]])), b)
    torch.testing.assert_close(mixed(a, b, torch.tensor([[0.75]])), torch.tensor([[[3.0, 1.0]]]) / math.sqrt(10))
