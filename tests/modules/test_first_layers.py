"""Where fine-tuning starts in a head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_zoo.modules.heads import MLP, first_layers


def test_a_layer_ends_with_its_activation():
    head = MLP(6, [5, 4], 3, last_norm="batch_no_offset").eval()
    kinds = [[type(layer).__name__ for layer in first_layers(head, count)] for count in (0, 1, 2, 3, -1)]
    middle = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds == [[], middle, 2 * middle, [*middle, *middle, "Linear", "BatchNorm1d"], kinds[3]]
    x = torch.randn(2, 6)
    assert torch.equal(first_layers(head, -1)(x), head(x)) and first_layers(head, 1)(x).shape == (2, 5)
    assert first_layers(head, 1)[0] is head[0]


def test_a_beginning_longer_than_the_head_is_refused():
    for count in (3, -2):
        with pytest.raises(ValueError, match=rf"a head of 2 layers has no first {count}; wanted 0 to 2, or -1"):
            first_layers(MLP(6, [5], 3), count)
    with pytest.raises(ValueError, match="a head of 1 layers"):
        first_layers(nn.Sequential(nn.Linear(2, 2)), 2)
