"""MoCHi: when it mixes, what from, and what is refused."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods import mochi
from ssl_zoo.optim.schedules import Progress
from tests.helpers import info, tiny_batch, tiny_config, tiny_method

SIZES = [16, 16]


def extra_of(method: mochi.MoCHi) -> torch.Tensor:
    with mock.patch.object(mochi, "info_nce_with", wraps=mochi.info_nce_with) as spy:
        method.training_loss(tiny_batch(SIZES))
    return spy.call_args.args[3]


def test_before_the_first_mixing_epoch_it_is_moco():
    method, moco = tiny_method("mochi"), tiny_method("moco_v2")
    method.mix_start = 1
    moco.load_state_dict(method.state_dict())
    for steps_per_epoch, mixes in ((4, False), (2, True)):
        method.progress = Progress(2, 10, steps_per_epoch)  # epoch 0, then epoch 1
        losses = [m.training_loss(tiny_batch(SIZES))["loss"].item() for m in (method, moco)]
        assert (losses[0] > losses[1]) if mixes else (losses[0] == losses[1])


def test_negatives_lie_between_the_hardest_and_never_nearer_to_the_query_than_halfway():
    method = tiny_method("mochi", ["method.hardest_of=1", "method.pairs=3", "method.with_query=4"])
    extra = extra_of(method)
    batch = tiny_batch(SIZES)
    q = torch.nn.functional.normalize(method.projector(method.backbone(batch.views[0])), dim=1)
    nearest = method.queue.keys[(q @ method.queue.keys.T).argmax(1)]  # [B, D]
    assert extra.shape == (8, 7, 8)
    torch.testing.assert_close(extra[:, :3], nearest[:, None].expand(8, 3, 8))  # between a key and itself
    cosine = (extra[:, 3:] * q[:, None]).sum(2)
    assert (cosine <= (extra[:, 3:] * nearest[:, None]).sum(2) + 1e-5).all()
    assert (cosine >= (nearest * q).sum(1, keepdim=True) - 1e-5).all()


def test_gradient_through_the_query_is_an_option():
    assert not extra_of(tiny_method("mochi")).requires_grad
    assert extra_of(tiny_method("mochi", ["method.through_query=true"])).requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hardest_of": 17}, "method.hardest_of=17: wanted 1 to method.queue_size=16, the keys to choose from"),
        ({"pairs": 0, "with_query": 0}, "method.pairs=0 and method.with_query=0 mix nothing"),
    ],
)
def test_numbers_that_mix_nothing_are_refused(given, message):
    cfg = tiny_config("mochi")
    cfg.method.update(given)
    with pytest.raises(ConfigError, match=message):
        build.build_method(cfg, info())
