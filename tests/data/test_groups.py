"""Orders that read samples by groups: pure functions, the same for any number of processes, kept across a resume."""

from pathlib import Path

import pytest
import torch

from ssl_zoo.data.sampler import Groups, Plan, alternating_order, grouped_order, order
from ssl_zoo.data.source import Shards
from ssl_zoo.errors import ConfigError
from tests.data.helpers import batches, files, memory, pictures

NUMBER = torch.tensor([0] * 10 + [1] * 2 + [2] * 5 + [-1] * 3 + [9])


def runs(positions: torch.Tensor, number: torch.Tensor) -> list[list[int]]:
    """Neighbours of the same group, as lists of positions."""
    out: list[list[int]] = []
    for position in positions.tolist():
        own = number[position]
        same = out and own >= 0 and number[out[-1][-1]] == own
        out[-1].append(position) if same else out.append([position])
    return out


def test_groups_come_in_runs_and_single_samples_alone() -> None:
    found = runs(grouped_order(0, 0, Groups(NUMBER, 4), 16), NUMBER)  # one pass: 4 + 4 + 4 + 1 + 1 + 1 + 1
    assert sorted(len(run) for run in found) == [1, 1, 1, 1, 4, 4, 4]
    by_group = {int(NUMBER[run[0]]): run for run in found}
    assert len(set(by_group[0])) == 4 and len(set(by_group[2])) == 4  # large enough: no sample twice
    assert sorted(by_group[1]) == [10, 10, 11, 11]  # two samples, in turn


def test_a_large_group_shows_all_its_samples_before_one_returns() -> None:
    positions = grouped_order(0, 0, Groups(NUMBER, 2), 200)
    shown = [p for p in positions.tolist() if NUMBER[p] == 0][:10]
    assert sorted(shown) == list(range(10))


def test_the_order_is_a_function_of_seed_epoch_and_groups_alone() -> None:
    state, groups = torch.get_rng_state(), Groups(NUMBER, 4)
    first = grouped_order(1, 2, groups, 100)
    assert torch.equal(first, grouped_order(1, 2, groups, 100)) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, grouped_order(1, 3, groups, 100))
    assert not torch.equal(first, grouped_order(2, 2, groups, 100))
    assert not torch.equal(first, grouped_order(1, 2, Groups(NUMBER.flip(0), 4), 100))


def test_the_order_does_not_change_between_versions() -> None:
    # Recorded once, true for ever: a resumed run may meet another version of this library or of torch.
    assert grouped_order(0, 0, Groups(torch.tensor([0, 0, 0, 1, 1, -1]), 2), 8).tolist() == RECORDED


RECORDED = [3, 4, 0, 2, 5, 1, 0, 5]


def test_ranks_share_the_same_global_order_and_no_groups_is_as_before() -> None:
    groups = Groups(torch.arange(24) % 5, 4)
    whole = grouped_order(3, 1, groups, 24)
    for rank in range(2):
        plan = Plan(24, 8, seed=3, rank=rank, world=2)
        assert torch.equal(plan.index(1, 1)[0], order(3, 1, 24)[8:16][rank * 4 : rank * 4 + 4])
        plan.group(groups)
        assert torch.equal(plan.index(1, 1)[0], whole[8:16][rank * 4 : rank * 4 + 4])
        plan.group(None)
        assert torch.equal(plan.index(1, 1)[0], order(3, 1, 24)[8:16][rank * 4 : rank * 4 + 4])


def test_groups_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="numbers for 23 samples and 4 instances; wanted 24 numbers"):
        Plan(24, 8, seed=0).group(Groups(torch.zeros(23), 4))
    shards = Shards(torch.arange(24) // 6, 2, 2)
    with pytest.raises(ConfigError, match="lie all over the shards of data=stream; use data=packed"):
        Plan(24, 8, seed=0, shards=shards).group(Groups(torch.zeros(24), 4))


def test_two_domains_alternate_each_by_its_own_groups() -> None:
    domain = torch.arange(len(NUMBER)) % 3 == 0  # 7 of 21
    positions = alternating_order(1, 2, Groups(NUMBER, 4, domain), 60)
    first, second = positions[0::2], positions[1::2]
    assert domain[first].all() and not domain[second].any()
    assert set(first.tolist()) == set(domain.nonzero().flatten().tolist())  # 30 places for 7 samples: they come again
    found = runs(second, NUMBER)[:5]  # one pass: 0 has 6 of them, 1 one, 2 four, and two alone
    assert sorted(len(run) for run in found) == [1, 1, 1, 4, 4]


def test_the_order_of_domains_is_a_function_of_seed_epoch_and_groups_alone() -> None:
    state, groups = torch.get_rng_state(), Groups(NUMBER, 4, torch.arange(len(NUMBER)) < 8)
    one = alternating_order(1, 2, groups, 60)
    assert torch.equal(one, alternating_order(1, 2, groups, 60)) and torch.equal(torch.get_rng_state(), state)
    for other in ((1, 3, groups), (2, 2, groups), (1, 2, groups._replace(domain=torch.arange(len(NUMBER)) < 9))):
        assert not torch.equal(one, alternating_order(*other, 60))


def test_the_order_of_domains_does_not_change_between_versions() -> None:
    small = Groups(torch.tensor([0, 0, 0, 1, 1, -1]), 2, torch.tensor([True, False, False, True, True, False]))
    assert alternating_order(0, 0, small, 8).tolist() == RECORDED_DOMAINS


RECORDED_DOMAINS = [4, 5, 3, 2, 0, 1, 4, 5]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_rank_reads_both_domains_equally_often_for_any_number_of_ranks(accumulate: int) -> None:
    domain = torch.arange(48) < 12
    groups = Groups(torch.arange(48) % 5, 2, domain)
    found = []
    for world in (1, 2, 4):
        plans = [Plan(48, 16, 3, accumulate, rank, world) for rank in range(world)]
        for plan in plans:
            plan.group(groups)
        micros = [[plan.index(1, i)[0] for plan in plans] for i in range(3 * accumulate)]
        assert all(2 * domain[index].sum() == len(index) for parts in micros for index in parts)
        found.append(torch.cat([torch.cat(parts) for parts in micros]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert len(found[0]) == 48  # as long an epoch as without domains


def test_two_domains_that_do_not_fit() -> None:
    domain, number = torch.arange(24) < 8, torch.zeros(24)
    with pytest.raises(ConfigError, match="batch_size=7: half .* an even number, and 7 over .*=1 gives 7; try .*=8"):
        Plan(24, 7, seed=0).group(Groups(number, 4, domain))
    with pytest.raises(ConfigError, match="data.batch_size=12: .*, and 12 over .*=4 gives 3; try data.batch_size=16"):
        Plan(24, 12, seed=0, accumulate=2, world=2).group(Groups(number, 4, domain))
    with pytest.raises(ValueError, match="got 24 samples of the first domain, 0 of the second and 4 instances"):
        Plan(24, 8, seed=0).group(Groups(number, 4, domain | True))
    with pytest.raises(ValueError, match="8 samples .* 16 of the second and None instances; wanted some of each, 24"):
        Plan(24, 8, seed=0).group(Groups(number, None, domain))
    with pytest.raises(ConfigError, match="use data=packed or data=folder$"):  # no option reads two domains otherwise
        Plan(24, 8, seed=0, shards=Shards(torch.arange(24) // 6, 2, 2)).group(Groups(number, 4, domain))


def test_groups_can_be_checked_before_they_are_found() -> None:
    data, domain = memory(batch_size=10), torch.arange(30) < 9
    before = data.state_dict()
    data.check_group(domain.long(), 4, domain)
    assert data.state_dict() == before
    with pytest.raises(ConfigError, match="data.batch_size=5: half of every micro-batch"):
        memory(batch_size=5).check_group(domain.long(), 4, domain)


@pytest.mark.parametrize("workers", [None, 2])
def test_two_domains_resume_in_the_middle_of_an_epoch(tmp_path: Path, workers: int | None) -> None:
    pictures(tmp_path, 30)

    def make():
        return memory() if workers is None else files(tmp_path, workers=workers)

    number, domain = torch.arange(30) % 5, torch.arange(30) < 9
    whole, cut, resumed = make(), make(), make()
    whole.group(number, 2, domain)
    wanted = [batch.index.tolist() for batch in batches(whole)]
    assert wanted == alternating_order(0, 0, Groups(number, 2, domain), 24).view(3, 8).tolist()
    cut.group(number, 2, domain)
    assert [batch.index.tolist() for batch in batches(cut, 1)] == wanted[:1]
    resumed.load_state_dict(cut.state_dict())
    assert [batch.index.tolist() for batch in batches(resumed)] == wanted[1:]
    for data in (whole, cut, resumed):
        data.teardown("fit")


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_a_run_that_changes_groups_between_epochs_resumes_in_the_middle(tmp_path: Path, workers: int | None) -> None:
    pictures(tmp_path, 30)

    def make():
        return memory() if workers is None else files(tmp_path, workers=workers)

    def epoch(data, number, n=None):
        if number is not None:
            data.group(number, 4)
        return [batch.index.tolist() for batch in batches(data, n)]

    groups = [torch.arange(30) % 5, torch.arange(30) // 10]
    data = make()
    whole = [epoch(data, None), *(epoch(data, number) for number in groups)]
    assert [len(indices) for indices in whole] == [3, 3, 3]
    for indices, number in zip(whole[1:], groups, strict=True):
        flat = torch.tensor(indices).flatten()
        assert torch.equal(flat, grouped_order(0, whole.index(indices), Groups(number, 4), 24))
        assert (number[flat].view(-1, 4) == number[flat].view(-1, 4)[:, :1]).all()
    data.teardown("fit")
    cut = make()
    epoch(cut, None)
    assert epoch(cut, groups[0], 2) == whole[1][:2]
    state = cut.state_dict()
    cut.teardown("fit")
    resumed = make()
    resumed.load_state_dict(state)
    assert epoch(resumed, None) == whole[1][2:]  # no hook runs in the middle of an epoch
    assert epoch(resumed, groups[1]) == whole[2]
    resumed.teardown("fit")
