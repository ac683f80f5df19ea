"""SimCLR v2: without a memory it is SimCLR, with one the keys are those of the moving average and of the queue."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo import build
from ssl_zoo.errors import ConfigError
from tests import helpers


def test_without_a_memory_it_is_simclr_with_another_head():
    two = helpers.tiny_method("simclr_v2", ["method.projector.hidden=[16]"])
    one = helpers.tiny_method("simclr", ["method.projector.hidden=[16]"])
    one.load_state_dict(two.state_dict())
    batch = helpers.tiny_batch([16, 16])
    assert torch.equal(one.training_loss(batch)["loss"], two.training_loss(batch)["loss"])
    linear = [layer for layer in helpers.tiny_method("simclr_v2").projector if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == 3


@pytest.mark.parametrize("both", [True, False])
def test_the_memory_is_written_as_a_loop(both):
    method = helpers.tiny_method("simclr_v2_memory", [f"method.sum_directions={both}"], torch.float64)
    batch = helpers.tiny_batch([16, 16], dtype=torch.float64)
    before = method.queue.keys.clone()
    loss = method.training_loss(batch)["loss"]
    student = method.encode(batch.views)[1:]
    teacher = F.normalize(method.teacher(torch.cat(batch.views)), dim=1).chunk(2)  # batch norm sees both views
    losses = []
    for q, k in ((student[0], teacher[1]), (student[1], teacher[0])):
        for i in range(len(q)):
            logits = torch.stack([q[i] @ key for key in (*k, *before)]) / method.temperature
            losses.append(torch.logsumexp(logits, 0) - logits[i])
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(loss, 2 * wanted if both else wanted)
    assert torch.equal(method.queue.keys, before)  # written after the backward only
    method.on_after_backward()
    torch.testing.assert_close(method.queue.keys[:16], torch.cat(teacher))


def test_a_queue_that_no_batch_divides_is_refused():
    cfg = helpers.tiny_config("simclr_v2_memory")
    cfg.method.queue_size = 24
    with pytest.raises(ConfigError, match="queue size 24 is not a multiple of the 16 rows"):
        build.build_method(cfg, helpers.info())
