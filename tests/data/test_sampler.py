import pytest
import torch

from ssl_zoo.data.sampler import Plan, order, sharded_order
from ssl_zoo.data.source import Part, Shards
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


# Shards

SHARDS = torch.arange(1000).div(7, rounding_mode="floor")  # 143 shards of 7 samples, the last of 6


def sharded(rank: int = 0, world: int = 1, lanes: int = 8, window: int = 3, number: torch.Tensor = SHARDS) -> Plan:
    return Plan(len(number), 32, 5, 2, rank, world, shards=Shards(number, lanes, window))


def rows(plan: Plan, epoch: int = 0) -> torch.Tensor:
    """[micro-batches, rows of this rank]"""
    return torch.stack([plan.index(epoch, micro)[0] for micro in range(plan.length)])


def test_a_sharded_epoch_shows_as_many_samples_as_any_other_and_none_twice():
    found = rows(sharded())
    assert found.shape == (62, 16)  # 1000 // 32 steps of two micro-batches: 8 samples are dropped, as without shards
    assert len(found.unique()) == 992 and 0 <= found.min() and found.max() < 1000


def test_a_sharded_order_is_decided_by_seed_and_epoch_and_not_by_the_number_of_ranks():
    whole = rows(sharded(), epoch=3)
    assert torch.equal(torch.cat([rows(sharded(rank, 4), 3) for rank in range(4)], dim=1), whole)
    assert torch.equal(rows(sharded(), 3), whole) and not torch.equal(rows(sharded(), 4), whole)


def test_a_sharded_order_does_not_change_between_versions():
    shards = Shards(torch.tensor([4, 4, 4, 9, 9, 9, 1, 1, 1, 1]), lanes=2, window=1)
    assert sharded_order(0, 0, shards, rows=4, length=2).tolist() == [1, 0, 4, 5, 2, 3, 9, 7]


def test_a_lane_reads_no_more_shards_at_a_time_than_its_window():
    found = rows(sharded(window=3)).view(62, 8, 2).transpose(0, 1).reshape(8, -1)  # [lane, place in it]
    most = 0
    for lane in SHARDS[found]:
        seen = [(lane == shard).nonzero().flatten() for shard in lane.unique()]
        first, last = torch.tensor([[places[0], places[-1]] for places in seen]).T
        places = torch.arange(len(lane))[:, None]
        most = max(most, int(((first <= places) & (places <= last)).sum(1).max()))
    assert most == 3


def test_every_node_reads_its_part_of_the_shards():
    parts = [SHARDS[rows(sharded(rank, 4))].unique() for rank in range(4)]
    assert all(143 / 4 - 2 <= len(part) <= 143 / 4 + 2 for part in parts), [len(part) for part in parts]
    assert sum(map(len, parts)) <= 143 + 3  # a shard belongs to two nodes only where the sequence is cut


def test_shards_of_one_class_each_are_mixed():
    classes = SHARDS // 15  # a store sorted by class: ten classes of 105 samples
    labels = torch.stack([classes[rows(sharded(), epoch)] for epoch in range(50)]).double()  # [epoch, micro-batch, row]
    place = torch.arange(labels[0].numel()).double()
    correlation = [torch.corrcoef(torch.stack([place, label.flatten()]))[0, 1] for label in labels]
    # 143 shards in random order: the typical correlation is 1 / sqrt(143) = 0.084. As they are stored it is 1.
    assert torch.stack(correlation).square().mean().sqrt() < 0.11
    distinct = torch.tensor([len(row.unique()) for row in labels.flatten(0, 1)]).double().mean()
    independent = 10 * (1 - 0.9**16)  # expected classes among 16 independent draws: 8.1
    assert distinct > 0.85 * independent, distinct


def test_the_samples_that_are_dropped_are_not_always_the_ends_of_shards():
    dropped = torch.zeros(1000)
    for epoch in range(200):
        dropped += torch.ones(1000).index_fill(0, rows(sharded(), epoch).flatten(), 0)
    by_place = torch.stack([dropped[place::7].sum() for place in range(7)])
    assert by_place.sum() == 200 * 8
    assert by_place.min() > 150 and by_place.max() < 310, by_place  # 1600 / 7 = 229


def test_lanes_divide_the_rows_and_are_no_more_than_the_shards():
    number = torch.arange(96) // 24  # 4 shards
    found = rows(sharded(lanes=64, window=1, number=number))
    assert found.shape == (6, 16)
    assert all(len(number[found[:, 4 * lane : 4 * lane + 4]].unique()) == 1 for lane in range(4))


def test_a_subset_of_a_sharded_source_keeps_its_shards():
    class Sharded:
        labels, classes, channels, image_size, in_memory, damage_limit = None, None, 3, None, False, 0
        shards = Shards(SHARDS, 8, 3)

    part = Part(Sharded(), torch.tensor([0, 7, 999]))
    assert part.shards.number.tolist() == [0, 1, 142] and part.shards.lanes == 8
    assert Part(Part(Sharded(), torch.arange(14)), torch.tensor([13])).shards.number.tolist() == [1]


# Epochs of another length


def test_a_longer_epoch_reads_the_set_again_in_another_order():
    plan, once = Plan(10, 4, seed=0, steps=5), order(0, 3, 10)[:8]
    batches = [plan.index(3, micro)[0] for micro in range(plan.length)]
    assert plan.length == 5 and torch.equal(torch.cat(batches[:2]), once)
    again = torch.cat(batches[2:4])
    assert len(again.unique()) == 8 and not torch.equal(again, once)
    assert all(len(batch.unique()) == 4 for batch in batches)
    assert [(r.epoch, r.micro) for r, _ in zip(plan.requests(3, 3), range(3), strict=False)] == [(3, 3), (3, 4), (4, 0)]


def test_a_shorter_epoch_stops_early():
    plan = Plan(23, 4, seed=1, accumulate=2, steps=2)
    assert plan.length == 4 and torch.equal(torch.cat([plan.index(0, i)[0] for i in range(4)]), order(1, 0, 23)[:8])
