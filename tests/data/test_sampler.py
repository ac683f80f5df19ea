import pytest
import torch

from ssl_zoo.data.sampler import Plan, order
from ssl_zoo.errors import ConfigError


def test_order_is_a_permutation_that_seed_and_epoch_alone_decide():
    state = torch.get_rng_state()
    first = order(3, 5, 100)
    assert first.sort().values.tolist() == list(range(100))
    assert torch.equal(first, order(3, 5, 100))
    assert not torch.equal(first, order(3, 6, 100)) and not torch.equal(first, order(4, 5, 100))
    assert torch.equal(torch.get_rng_state(), state)


def test_order_does_not_change_between_versions():
    # A resumed run may meet another version of this library or of torch: recorded once, true for ever.
    assert order(0, 0, 8).tolist() == [7, 1, 2, 3, 4, 0, 6, 5]


def test_ranks_own_contiguous_rows_of_each_global_micro_batch():
    plan = Plan(23, 8, seed=1, accumulate=2)
    whole = order(1, 4, 23)
    assert plan.length == 4  # 23 // 8 steps of 2 micro-batches: the tail of 7 is dropped
    for micro in range(plan.length):
        rows, slots = [], []
        for rank in range(2):
            index, slot = Plan(23, 8, 1, 2, rank, 2).index(4, micro)
            rows.append(index)
            slots += list(range(slot, slot + len(index)))
        assert torch.equal(torch.cat(rows), whole[micro * 4 : micro * 4 + 4])
        assert slots == list(range(micro * 4, micro * 4 + 4))


def test_requests_run_through_epochs_from_any_position():
    plan = Plan(10, 4, seed=0)
    requests = plan.requests(2, 1)
    found = [next(requests) for _ in range(3)]
    assert [(r.epoch, r.micro, r.slot) for r in found] == [(2, 1, 4), (3, 0, 0), (3, 1, 4)]
    assert found[1].index == order(0, 3, 10)[:4].tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((100, 10, 0, 4, 0, 1), ["data.batch_size=10", "trainer.accumulate=4 x 1 processes", "try data.batch_size=12"]),
        ((40, 256, 0, 1, 0, 1), ["40 samples, fewer than data.batch_size=256", "try data.batch_size=32"]),
    ],
)
def test_batches_that_cannot_be_made(arguments, words):
    with pytest.raises(ConfigError) as error:
        Plan(*arguments)
    assert all(word in str(error.value) for word in words), error.value
