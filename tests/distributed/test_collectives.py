"""What processes tell each other, against the same sums in one process."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from ssl_zoo import distributed as d
from ssl_zoo.modules.batch_norm import BatchNorm, convert
from tests.pool import GlooPool

ROWS = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gathered_gradient() -> tuple[torch.Tensor, torch.Tensor]:
    x = d.own_rows(ROWS).clone().requires_grad_()
    weights = torch.arange(8.0, dtype=torch.float64)[:, None, None, None] * (1 + d.rank())
    out = d.gather(x)
    (out * weights).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


def test_gather_keeps_the_order_and_its_backward_sums_over_ranks(pool: GlooPool) -> None:
    for rank, (out, gradient) in enumerate(pool.run(gathered_gradient)):
        assert torch.equal(out, ROWS)
        # Rank 0 weighs row i by i, rank 1 by 2i: together 3i.
        wanted = 3.0 * torch.arange(8.0, dtype=torch.float64)[4 * rank : 4 * rank + 4]
        assert torch.equal(gradient[:, 0, 0, 0], wanted)


def summed() -> tuple[float, float]:
    x = torch.tensor(float(d.rank() + 1), requires_grad=True)
    out = d.sum_over_ranks(x) * (d.rank() + 1)
    out.backward()
    assert x.grad is not None
    return out.item(), x.grad.item()


def test_sum_over_ranks_and_its_gradient(pool: GlooPool) -> None:
    assert pool.run(summed) == [(3.0, 3.0), (6.0, 3.0)]


def mean_of_chosen() -> tuple[float, float, list[float]]:
    values = d.own_rows(torch.tensor([1.0, 2.0, 6.0, float("inf")])).requires_grad_()
    chosen = d.own_rows(torch.tensor([True, False, True, False]))
    mean = d.mean_of_chosen(values, chosen)
    mean.backward()
    assert values.grad is not None
    return mean.item(), d.mean_of_chosen(values, chosen & False).item(), values.grad.tolist()


def test_a_mean_is_of_the_chosen_rows_of_all_ranks(pool: GlooPool) -> None:
    assert mean_of_chosen() == (3.5, 0.0, [0.5, 0.0, 0.5, 0.0])
    first, second = pool.run(mean_of_chosen)
    assert (first[0] + second[0]) / 2 == 3.5 and first[1] == second[1] == 0
    assert [grad / 2 for grad in first[2] + second[2]] == [0.5, 0.0, 0.5, 0.0]  # DDP's mean


class Order:
    def permutation(self, n: int) -> torch.Tensor:
        return torch.randperm(n, generator=torch.Generator().manual_seed(3))


def shuffled_outputs(group: int) -> torch.Tensor:
    norm = convert(nn.BatchNorm2d(3, affine=False).double(), group)
    return d.shuffled(norm, d.own_rows(ROWS), Order())


@pytest.mark.parametrize("group", [2, 4, 8])
def test_shuffled_batch_norm_is_the_same_on_one_and_two_processes(pool: GlooPool, group: int) -> None:
    one = shuffled_outputs(group)
    two = torch.cat(pool.run(shuffled_outputs, group))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-13)
    order = Order().permutation(8)
    first = ROWS[order][:group]  # the rows that share statistics
    centred = first - first.mean((0, 2, 3), keepdim=True)
    wanted = centred / (first.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(one[order[:group]], wanted, rtol=0, atol=1e-12)


def normalised(group: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    convert(norm, group)
    x = d.own_rows(ROWS).clone().requires_grad_()
    out = norm(x)
    # A sum over ranks of the ranks' losses: what gradients of collectives are defined for.
    (out.square() * torch.linspace(1, 2, 16, dtype=torch.float64).view(1, 1, 4, 4) + out.pow(3)).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad, norm.running_mean, norm.running_var


@pytest.mark.parametrize("group", [None, 2, 4, 8])
def test_grouped_batch_norm_is_the_same_on_one_and_two_processes(pool: GlooPool, group: int | None) -> None:
    one, two = normalised(group), pool.run(normalised, group)
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([rank[i] for rank in two]), one[i], rtol=1e-11, atol=1e-11)
    for rank in two:
        torch.testing.assert_close(rank[2], one[2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rank[3], one[3], rtol=1e-12, atol=1e-12)


def test_groups_of_one_process_are_separate_batch_norms() -> None:
    norm, plain = convert(nn.BatchNorm2d(3).double(), 4), nn.BatchNorm2d(3).double()
    wanted = torch.cat([plain(part) for part in ROWS.split(4)])
    torch.testing.assert_close(norm(ROWS), wanted, rtol=0, atol=1e-12)
    means = torch.stack([part.mean((0, 2, 3)) for part in ROWS.split(4)])
    torch.testing.assert_close(norm.running_mean, 0.1 * means.mean(0), rtol=0, atol=1e-12)


def test_a_group_that_does_not_divide_is_an_error_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="groups of 3 and 8 samples do not divide"):
        convert(nn.BatchNorm2d(3).double(), 3)(ROWS)
    with pytest.raises(ValueError, match=r"batch_norm.group=16 does not divide .* of 1 x 8 samples; try 8"):
        convert(nn.BatchNorm2d(3).double(), 16)(ROWS)


def test_convert_names_a_layer_it_does_not_know() -> None:
    class Strange(nn.BatchNorm2d):
        pass

    with pytest.raises(TypeError, match="batch norm '1' is a Strange"):
        convert(nn.Sequential(nn.Identity(), Strange(3)))
    assert type(convert(nn.BatchNorm1d(3))) is BatchNorm


def some_rank_says(rank: int) -> bool:
    return d.any_rank(d.rank() == rank)


def test_any_rank(pool: GlooPool) -> None:
    assert pool.run(some_rank_says, 1) == [True, True]
    assert pool.run(some_rank_says, 5) == [False, False]


def largest(number: int) -> tuple[int, int, int]:
    """Asked again before the first answer is taken: each question has its own."""
    first = d.highest_soon(number * d.rank())
    second = d.highest_soon(-number * d.rank())
    return d.highest(d.rank()), first(), second()


def test_the_largest_number_of_any_rank_comes_later(pool: GlooPool) -> None:
    assert largest(3) == (0, 0, 0)
    assert pool.run(largest, 3) == [(1, 3, 0)] * 2


def exchanged(kind: torch.dtype, block: int) -> torch.Tensor:
    whole = torch.arange(35).view(7, 5).to(kind)
    places = (torch.tensor([6, 0, 3]), torch.tensor([1, 2, 4, 5]))
    mine = torch.full_like(whole, -1)
    mine[places[d.rank()]] = whole[places[d.rank()]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d, "BLOCK", block)
        return d.exchange_(mine, places, "cpu")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.int64])
@pytest.mark.parametrize("block", [1, 64, 1 << 20])  # a row, some rows, all at a time
def test_rows_of_other_ranks_are_filled_in(pool: GlooPool, kind: torch.dtype, block: int) -> None:
    for found in pool.run(exchanged, kind, block):
        assert torch.equal(found, torch.arange(35).view(7, 5).to(kind))


def entered_second() -> float:
    """When this rank was let in, of rank 0 when it had done its work."""
    with d.main_first():
        if d.is_main():
            time.sleep(0.2)
        return time.monotonic()


def test_the_main_process_goes_first(pool: GlooPool) -> None:
    first, second = pool.run(entered_second)
    assert first <= second
