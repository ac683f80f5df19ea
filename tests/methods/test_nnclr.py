"""NNCLR: the nearest row of the support set is the positive."""

import math

import pytest
import torch

from ssl_zoo.methods.nnclr import NNCLR
from tests.golden.harness import Identity, batch_of, data_info, fill, no_recipe


def method(**options: object) -> NNCLR:
    given = NNCLR(Identity(2), no_recipe(), data_info(2), Identity, Identity, 1.0, 4, **options)  # type: ignore[arg-type]
    fill(given, {"queue.keys": [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]})
    return given


VIEWS = [torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[2.0, 0.1], [0.0, 1.0]])]


def test_the_neighbour_replaces_the_view() -> None:
    # Neighbours of both views: e1 and e2. Direction 1 compares them with the unit predictions of view 2, and so on.
    p = [torch.nn.functional.normalize(view, dim=1) for view in VIEWS]
    rows = [[math.log(sum(math.exp(float(x[i])) for x in q)) - float(q[i][i]) for i in range(2)] for q in p]
    assert method().training_loss(batch_of(VIEWS))["loss"].item() == pytest.approx(sum(map(sum, rows)) / 4, rel=1e-6)


def test_only_the_first_view_enters_the_support_set_after_the_backward_pass() -> None:
    given = method()
    before = given.queue.keys.clone()
    given.training_loss(batch_of(VIEWS))
    assert torch.equal(given.queue.keys, before)
    given.on_after_backward()
    torch.testing.assert_close(given.queue.keys[:2], torch.nn.functional.normalize(VIEWS[0], dim=1))
    assert torch.equal(given.queue.keys[2:], before[2:])


def test_negatives_of_both_views_cost_more() -> None:
    losses = [method(in_view_negatives=n).training_loss(batch_of(VIEWS))["loss"] for n in (False, True)]
    assert losses[1] > losses[0]


def test_a_queue_that_batches_do_not_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="queue size 5 is not a multiple of the 2 rows"):
        NNCLR(Identity(2), no_recipe(), data_info(2), Identity, Identity, queue_size=5)
