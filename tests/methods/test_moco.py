"""MoCo: queues of its views, when its teacher moves, and what of it is evaluated."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from ssl_zoo.data.image.source import image_info
from ssl_zoo.losses.contrastive import info_nce
from ssl_zoo.methods.base import Method
from ssl_zoo.methods.moco import MoCo
from ssl_zoo.methods.moco_v3 import MoCoV3
from ssl_zoo.methods.ressl import ReSSL
from ssl_zoo.modules.heads import MLP
from tests.golden.harness import recipe
from tests.helpers import tiny_batch, train_step

INFO = image_info(samples=64, classes=4, image_size=8, channels=3, batch_size=8)
HEAD = partial(MLP, hidden=[], out_features=6, last_bias=True)
QUEUED = {"data_info": INFO, "projector": HEAD, "queue_size": 16}
KINDS: dict[str, Any] = {
    "moco": partial(MoCo, **QUEUED), "ressl": partial(ReSSL, **QUEUED),
    "moco_v3": partial(MoCoV3, projector=HEAD, predictor=HEAD),
}  # fmt: skip


def built(name: str = "moco", **options: Any) -> Any:
    net: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.out_features = 4
    method: Method = KINDS[name](net, recipe(torch.optim.SGD, lr=0.5), **options)
    method.bind(8)
    return method.double()


def batch() -> Any:
    return tiny_batch([8, 8], dtype=torch.float64)


def test_each_view_has_a_queue_of_its_own_and_the_losses_are_averaged() -> None:
    method, views = built(symmetric=True, own_queues=True, temperature=0.2), batch().views
    method.first_queue.keys.copy_(-method.queue.keys)
    k = [normalize(method.teacher(view), dim=1) for view in views]
    q = [normalize(method.projector(method.backbone(view)), dim=1) for view in views]
    parts = info_nce(q[0], k[1], method.queue.keys, 0.2), info_nce(q[1], k[0], method.first_queue.keys, 0.2)
    loss = method.training_loss(batch())["loss"]
    assert loss.item() == pytest.approx((parts[0] + parts[1]).item() / 2, rel=1e-12)
    loss.backward()
    method.on_after_backward()
    for queue, keys in ((method.queue, k[1]), (method.first_queue, k[0])):
        torch.testing.assert_close(queue.keys[:8], keys, rtol=1e-10, atol=1e-12)


def test_own_queues_are_for_both_views() -> None:
    with pytest.raises(ValueError, match="method.own_queues=true is for keys of both views; set method.symmetric=true"):
        built(own_queues=True)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("after", [True, False, None])
def test_a_teacher_moves_before_its_forward_or_after_the_step(name: str, after: bool | None) -> None:
    method = built(name, momentum=0.5, moves_after_step=after)
    weight = method.backbone[0].weight
    start = weight.detach().clone()
    train_step(method, batch())
    assert not torch.equal(weight, start)
    wanted = (start + weight) / 2 if after else start
    torch.testing.assert_close(method.teacher.net[0][0].weight, wanted.detach())


def test_the_encoder_is_evaluated_with_its_head_where_asked() -> None:
    plain, headed = built(), built(evaluate_head=True)
    view = batch().views[0]
    assert torch.equal(plain.embed(view), plain.backbone(view))
    assert torch.equal(headed.embed(view), headed.projector(headed.backbone(view)))
    assert [m.training_loss(batch())["features"].shape for m in (plain, headed)] == [(8, 4), (8, 6)]
