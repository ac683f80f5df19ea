"""Interleaved groups, and ranks with different numbers of rows; the rest is tested with the collectives."""

import pytest
import torch
from torch import nn

from ssl_zoo.distributed import rank, world_size
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


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("dealt", [True, False])
def test_groups_in_turn_are_groups_as_channels(dealt: bool, tracked: bool) -> None:
    """The way of a CPU and that of a GPU."""
    norm = convert(nn.BatchNorm2d(3).double(), 2, interleaved=dealt)
    found = []
    for way in (norm._in_turn, norm._as_channels):
        x = ROWS.to(memory_format=torch.channels_last, copy=True).requires_grad_()
        stats = torch.ones(2, 3, 3, dtype=torch.float64) if tracked else None
        out = way(x, 3, stats)
        gradients = torch.autograd.grad(out.pow(3).sum(), [x, norm.weight, norm.bias])
        found.append([out, *gradients, *([stats] if tracked else [])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)
    assert not tracked or (found[0][-1] != 1).all()


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


def in_layouts(of_rows: torch.memory_format, of_gradient: torch.memory_format) -> dict[str, torch.Tensor]:
    """As :func:`uneven` with two rows each."""
    rows = ROWS[:4].unflatten(0, (2, 2))[rank()] if world_size() > 1 else ROWS[:4]
    x = rows.clone(memory_format=of_rows).requires_grad_()
    norm = convert(nn.BatchNorm2d(3).double())
    out = norm(x)
    out.backward((3 * out.detach() ** 2).clone(memory_format=of_gradient))
    return {"out": out.detach(), "x": x.grad}


@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("of_rows", [torch.contiguous_format, torch.channels_last])
def test_every_layout_gives_the_same_and_is_kept(
    pool: GlooPool, of_rows: torch.memory_format, of_gradient: torch.memory_format
) -> None:
    whole = in_layouts(torch.contiguous_format, torch.contiguous_format)
    for name, value in whole.items():
        parts = [part[name] for part in pool.run(in_layouts, of_rows, of_gradient)]
        torch.testing.assert_close(torch.cat(parts), value, rtol=0, atol=1e-12, msg=name)
        assert all(part.is_contiguous(memory_format=of_rows) for part in parts), name


def test_batches_of_one_group_and_of_several_go_back_together() -> None:
    """A crop and its tiles (InfoMin): a step's second pass may not spoil what the first one keeps for its gradient."""
    norm, alone = convert(nn.BatchNorm2d(3).double(), group=6), nn.BatchNorm2d(3).double()
    (norm(ROWS).square().sum() + norm(torch.cat([ROWS, ROWS])).square().sum()).backward()
    (3 * alone(ROWS).square().sum()).backward()
    torch.testing.assert_close(norm.weight.grad, alone.weight.grad, rtol=0, atol=1e-10)
