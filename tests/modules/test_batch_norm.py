"""Groups of samples that bring several rows, or are dealt in turn; ranks with different numbers of rows.

The rest is tested with the collectives."""

import pytest
import torch
from torch import nn

from ssl_zoo.backbones.apply import concat, joined
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.grad_cache import in_chunks
from ssl_zoo.passes import laid_out
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


def by_hand(x: torch.Tensor, views: int, tiles: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised rows, and the mean over groups of their means and variances, from a loop over samples."""
    out, means, variances, samples = torch.empty_like(x), [], [], len(x) // views // tiles
    for first in range(0, samples, group):
        members = range(first, first + group)
        own = [(v * samples + i) * tiles + t for v in range(views) for i in members for t in range(tiles)]
        values = x[own].transpose(0, 1).flatten(1)  # [C, rows * places]
        mean, spread = values.mean(1), values.var(1, correction=0)
        for row in own:
            out[row] = (x[row] - mean[:, None, None]) / (spread[:, None, None] + 1e-5).sqrt()
        means.append(mean)
        variances.append(values.var(1))
    return out, torch.stack(means).mean(0), torch.stack(variances).mean(0)


MANY = torch.randn(48, 3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64).cumsum(0)
LAYOUTS = [(1, 1), (2, 1), (1, 3), (2, 3)]  # views, tiles


def grouped(views: int, tiles: int, group: int | None, way: str = "_in_turn") -> dict[str, torch.Tensor]:
    """Of this rank's samples of the global batch :data:`MANY`."""
    whole = MANY.view(views, -1, tiles, 3, 2, 2)
    share = whole.shape[1] // world_size()
    x = whole[:, rank() * share :][:, :share].flatten(0, 2).clone().requires_grad_()
    norm = convert(nn.BatchNorm2d(3).double(), group)
    norm._in_turn = getattr(norm, way)
    with laid_out(views=views), laid_out(rows=tiles):
        out = norm(x)
    (out**3).sum().backward()
    found = {"out": out.detach(), "x": x.grad, "mean": norm.running_mean, "var": norm.running_var}
    return {name: t.view(views, share, -1) if t.dim() == 4 else t for name, t in found.items()}


@pytest.mark.parametrize("way", ["_in_turn", "_as_channels"])  # of a CPU, and of a GPU
@pytest.mark.parametrize("group", [2, 4, 8])
@pytest.mark.parametrize(("views", "tiles"), LAYOUTS)
def test_a_group_holds_all_rows_of_its_samples(views: int, tiles: int, group: int, way: str) -> None:
    found, (out, mean, var) = grouped(views, tiles, group, way), by_hand(MANY, views, tiles, group)
    torch.testing.assert_close(found["out"].flatten(), out.flatten(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found["mean"], 0.1 * mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found["var"], 0.9 + 0.1 * var, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("views", "tiles"), LAYOUTS)
def test_groups_of_samples_are_the_same_on_two_processes(views: int, tiles: int, pool: GlooPool) -> None:
    samples = len(MANY) // views // tiles
    for group in (None, samples // 4, samples // 2, samples):
        one, ranks = grouped(views, tiles, group), pool.run(grouped, views, tiles, group)
        for name, value in one.items():
            joined = torch.cat([part[name] for part in ranks], 1) if name in ("out", "x") else ranks[0][name]
            torch.testing.assert_close(joined, value, rtol=1e-10, atol=1e-10, msg=name)
        if group == samples:
            for name, value in grouped(views, tiles, None).items():
                assert torch.equal(one[name], value), name


def test_views_that_are_joined_share_a_group() -> None:
    """Whatever comes beside their features: DINOv2's tokens, with a convolution and its norm before the blocks."""
    norm = convert(nn.BatchNorm2d(3).double(), group=6)
    out, more = joined(lambda rows, more: (norm(rows), more), MANY.chunk(2), more=7)
    torch.testing.assert_close(out, by_hand(MANY, 2, 1, 6)[0], rtol=0, atol=1e-10)
    assert more == 7
    assert all(torch.equal(a, b) for a, b in zip(concat(norm, MANY.chunk(2)), out.chunk(2), strict=True))


def test_dealt_samples_keep_their_rows_together() -> None:
    norm = interleaved(2)
    with laid_out(views=2, rows=3):
        out = norm(MANY[:24])  # 4 samples: 0 and 2 are one group, 1 and 3 the other
    rows = torch.arange(24).view(2, 2, 2, 3)[:, :, 0].flatten()
    wanted, _, _ = by_hand(MANY[rows], 1, 1, len(rows))
    torch.testing.assert_close(out[rows], wanted, rtol=0, atol=1e-10)


def test_evaluation_asks_for_no_layout() -> None:
    norm = interleaved(4).eval()
    with laid_out(views=5):
        assert torch.equal(norm(ROWS), nn.BatchNorm2d(3).double().eval()(ROWS))


def test_rows_that_are_of_no_whole_samples_are_refused() -> None:
    with laid_out(views=2), pytest.raises(ValueError, match="a forward pass of 5 rows was said to hold 2 views of"):
        convert(nn.BatchNorm2d(3).double(), 2)(ROWS[:5])


def test_a_repeated_pass_keeps_its_layout() -> None:
    """A gradient cache embeds again while the backward pass runs, where nothing is around it any more."""
    found = []
    for chunks in (1, 4):
        norm, x = convert(nn.BatchNorm2d(3).double(), group=2), MANY.clone().requires_grad_()
        with laid_out(rows=3):
            (out,) = in_chunks(norm, lambda rows, norm=norm: (norm(rows),), x, chunks)
        (out**3).sum().backward()
        found.append([out.detach(), x.grad, norm.weight.grad, norm.running_var])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_compiled_network_knows_the_layout_of_each_pass() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    norms = [convert(nn.BatchNorm2d(3), group=4) for _ in range(2)]
    norms[0].compile(dynamic=False, backend="eager")
    for views, tiles in ((1, 1), (2, 3), (1, 1), (2, 3)):
        with laid_out(views, tiles):
            torch.testing.assert_close(norms[0](MANY.float()), norms[1](MANY.float()), rtol=0, atol=0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # one for each layout
