"""iBOT's head: one last layer or two, and the part of it that a teacher with one has."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.modules.ema import EMA
from ssl_zoo.modules.token_head import TokenHead

SMALL = {"hidden": [6, 6], "bottleneck": 3}


def test_a_shared_head_treats_patches_as_class_tokens():
    head, x = TokenHead(4, **SMALL, out_features=5), torch.randn(2, 3, 4)
    assert torch.equal(head.patches(x), head(x))


def test_patches_with_their_own_layer_share_what_is_before_it():
    head, x = TokenHead(4, **SMALL, out_features=5, shared=False, patch_features=7), torch.randn(2, 3, 4)
    assert torch.equal(head.patches(x), head.last_layer2(head.embed(x)))
    assert (head(x).shape, head.patches(x).shape, head.patch_features) == ((2, 3, 5), (2, 3, 7), 7)


def test_the_tied_part_is_the_head_without_the_layer_of_patches():
    head, x = TokenHead(4, **SMALL, out_features=5, shared=False), torch.randn(2, 4)
    tied = head.tied()
    assert torch.equal(tied.patches(x), head(x)) and head.last_layer2 is not None
    own = dict(head.named_parameters())
    assert {name for name in own if not name.startswith("last_layer2")} == set(dict(tied.named_parameters()))
    assert all(p is own[name] for name, p in tied.named_parameters())
    EMA(tied).update(head.tied(), 0.5)  # the teacher of a head with two last layers may have one


def test_another_number_of_patch_scores_needs_its_own_layer():
    with pytest.raises(ValueError, match="patch_features=7 with shared=true, where patches have the 5 scores"):
        TokenHead(4, **SMALL, out_features=5, patch_features=7)
