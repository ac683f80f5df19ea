"""Dropout with drawn masks, and layers inside of networks that draw them for samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.backbones.apply import concat, joined, tiled
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.modules.dropout import draw_for_samples, dropout, uniform, with_dropout
from ssl_zoo.modules.grad_cache import in_chunks
from tests.pool import GlooPool


def test_a_share_of_the_entries_is_zero_and_the_mean_stays() -> None:
    rng = BatchRNG(0, 0, 0, torch.arange(200))
    out = dropout(torch.ones(200, 100), 0.25, rng.sample("dropout"))
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01  # 20,000 entries: standard deviation 0.003


def test_masks_belong_to_samples() -> None:
    x = torch.ones(8, 5)
    whole = dropout(x, 0.5, BatchRNG(0, 0, 0, torch.arange(8)).sample("dropout"))
    half = dropout(x[4:], 0.5, BatchRNG(0, 0, 0, torch.arange(4, 8)).sample("dropout"))
    assert torch.equal(whole[4:], half)


def test_without_dropout_nothing_happens() -> None:
    x = torch.randn(3, 2)
    assert dropout(x, 0.0, BatchRNG(0, 0, 0, torch.arange(3)).sample("dropout")) is x


def test_each_linear_layer_of_a_head_has_dropout_of_its_own_before_it() -> None:
    rng = BatchRNG(0, 0, 0, torch.arange(8))
    first, second = nn.Linear(5, 4), nn.Linear(4, 3)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    inner = first(dropout(x, 0.5, rng.sample(("dropout", 0)))).relu()
    wanted = second(dropout(inner, 0.5, rng.sample(("dropout", 2))))
    assert torch.equal(with_dropout([first, nn.ReLU(), second], x, 0.5, rng), wanted)


LAYERS: dict[str, nn.Module] = {
    "timm": DropPath(0.5),
    "torchvision": StochasticDepth(0.5, "row"),
    "torchvision, all at once": StochasticDepth(0.5, "batch"),
    "numbers": nn.Dropout(0.5),
    "channels": nn.Dropout2d(0.5),
}


def ours(name: str) -> nn.Module:
    net = nn.Sequential(LAYERS[name], nn.Identity())
    draw_for_samples(net)
    assert [key for key, _ in net.named_modules()] == ["", "0", "1"]
    return net.train()


def passed(name: str, chunks: int = 1) -> dict[str, Tensor]:
    """Of the own of 8 samples: views one by one, together, and tiles."""
    net, own = ours(name), 8 // world_size()
    views = [torch.ones(8, 3, 2, 2)[rank() * own :][:own] for _ in range(2)]
    torch.manual_seed(0)
    one = in_chunks(net, lambda views: [net(view) for view in views], views, chunks)
    together = in_chunks(net, lambda views: concat(net, views), views, chunks)
    tiles = in_chunks(net, lambda tiles: [tiled(net, tiles)], torch.stack(views * 2, 1), chunks)
    after = torch.rand(3)
    parts = {"first": one[0], "second": one[1], "together": torch.stack(list(together), 1), "tiles": tiles[0]}
    return {**{key: value.detach() for key, value in parts.items()}, "after": after}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("chunks", [1, 2])
def test_layers_drop_the_same_of_a_sample_on_two_processes_and_in_chunks(
    name: str, chunks: int, pool: GlooPool
) -> None:
    whole = passed(name)
    two = pool.run(passed, name, chunks)
    for key, value in whole.items():
        found = two[0][key] if key == "after" else torch.cat([part[key] for part in two])
        assert torch.equal(found, value), key
        assert torch.equal(passed(name, chunks)[key], value), key
    if "once" not in name:
        assert not torch.equal(whole["first"], whole["second"])
        assert len(whole["together"].unique(dim=0)) > 1 and len(whole["tiles"].flatten(0, 1).unique(dim=0)) > 1


@pytest.mark.parametrize(("name", "unit"), [("timm", 1), ("torchvision", 1), ("channels", 3), ("numbers", 12)])
def test_layers_drop_their_share_and_the_mean_stays(name: str, unit: int) -> None:
    torch.manual_seed(0)
    out = ours(name)(torch.ones(20_000, 3, 2, 2))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    units = out.reshape(20_000, unit, -1)
    assert torch.equal(units.amin(-1), units.amax(-1))
    assert abs(float(units[..., 0].mean()) - 1) < 0.03  # standard deviation 0.007 of 20,000 samples
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(ours(name).eval()(x), x)


def test_everything_is_dropped_where_all_is_asked_for() -> None:
    for layer in (DropPath(1.0), nn.Dropout(1.0)):
        draw_for_samples(layer)
        assert torch.equal(layer.train()(torch.ones(4, 2)), torch.zeros(4, 2))


def test_numbers_of_a_view_do_not_depend_on_how_many_rows_are_of_a_sample() -> None:
    def drawn(*_: Any) -> Tensor:
        torch.manual_seed(0)
        return uniform(12, 2, device=torch.device("cpu"))

    assert drawn().shape == joined(drawn, [torch.zeros(6, 1)] * 2).shape == (12, 2)
    assert torch.equal(drawn(), joined(drawn, [torch.zeros(6, 1)] * 2))


def test_gradients_in_chunks_meet_the_masks_of_the_forward_pass() -> None:
    net, x = ours("numbers"), torch.ones(8, 5, requires_grad=True)
    torch.manual_seed(0)
    (out,) = in_chunks(net, lambda rows: [net(rows)], x, 4)
    torch.manual_seed(99)  # what comes between
    out.sum().backward()
    assert torch.equal(x.grad, out)
