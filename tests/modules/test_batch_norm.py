"""Interleaved groups, and ranks with different numbers of rows; the rest is tested with the collectives."""

import pytest
import torch
from torch import nn

from ssl_zoo.distributed import rank, world_size
from ssl_zoo.modules import batch_norm
from ssl_zoo.modules.batch_norm import convert
from tests.pool import GlooPool

ROWS = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def interleaved(group: int) -> nn.Module:
    return convert(nn.BatchNorm2d(3).double(), group, interleaved=True)


@pytest.mark.parametrize("group", [1, 2, 3])
def test_interleaved_groups_deal_rows_in_turn(group: int) -> None:
    splits = len(ROWS) // group
    norm, separate = interleaved(group), [nn.BatchNorm2d(3).double() for _ in range(splits)]
    out = norm(ROWS)
    for i, other in enumerate(separate):
        torch.testing.assert_close(out[i::splits], other(ROWS[i::splits]), rtol=0, atol=1e-12)
    wanted = torch.stack([other.running_var for other in separate]).mean(0)
    torch.testing.assert_close(norm.running_var, wanted, rtol=0, atol=1e-12)


def refused() -> str:
    try:
        interleaved(2)(ROWS)
    except ValueError as error:
        return str(error)
    return ""


def test_interleaved_groups_would_cross_processes(pool: GlooPool) -> None:
    assert all("use one process or consecutive groups" in message for message in pool.run(refused))


def uneven(shares: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics for this rank's rows, of which each rank has another number."""
    start = sum(shares[: rank()]) if world_size() > 1 else 0
    rows = ROWS[start : start + shares[rank()]] if world_size() > 1 else ROWS
    x = rows.clone().requires_grad_()
    norm = convert(nn.BatchNorm2d(3).double())
    nn.init.constant_(norm.weight, 1.5)
    out = norm(x)
    (out**3).sum().backward()
    return {"out": out.detach(), "x": x.grad, "mean": norm.running_mean, "var": norm.running_var}


@pytest.mark.parametrize("shares", [(4, 2), (1, 5), (6, 0)])
def test_ranks_may_hold_different_numbers_of_rows(pool: GlooPool, shares: tuple[int, ...]) -> None:
    whole, ranks = uneven(shares), pool.run(uneven, shares)
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([part[name] for part in ranks]), whole[name], rtol=0, atol=1e-11)
    for part in ranks:
        for name in ("mean", "var"):
            torch.testing.assert_close(part[name], whole[name], rtol=0, atol=1e-12)


def uneven_with_torchs_kernels(shares: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """As on a GPU, and for bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "_on_cpu", lambda x: False)
        return uneven(shares)


def test_both_ways_to_a_norm_over_processes_are_the_same(pool: GlooPool) -> None:
    for own, theirs in zip(pool.run(uneven, (4, 2)), pool.run(uneven_with_torchs_kernels, (4, 2)), strict=True):
        for name, value in own.items():
            torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-12, msg=name)


def test_batches_of_one_group_and_of_several_go_back_together() -> None:
    """A crop and its tiles (InfoMin): a step's second pass may not spoil what the first one keeps for its gradient."""
    norm, alone = convert(nn.BatchNorm2d(3).double(), group=6), nn.BatchNorm2d(3).double()
    (norm(ROWS).square().sum() + norm(torch.cat([ROWS, ROWS])).square().sum()).backward()
    (3 * alone(ROWS).square().sum()).backward()
    torch.testing.assert_close(norm.weight.grad, alone.weight.grad, rtol=0, atol=1e-10)
