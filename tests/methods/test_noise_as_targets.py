"""NAT: what an exchange keeps, when it happens, and what it depends on."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch

from ssl_zoo import build, config
from ssl_zoo.distributed import world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.noise_as_targets import NoiseAsTargets
from ssl_zoo.modules.noise_targets import NoiseTargets, best_assignment, exchanged
from ssl_zoo.optim.schedules import Progress
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool


def method_of(*words: str) -> NoiseAsTargets:
    method = tiny_method("noise_as_targets", words, torch.float64)
    assert isinstance(method, NoiseAsTargets)
    return method


def test_targets_are_unit_rows_and_the_start_is_a_permutation_of_the_seed() -> None:
    one, same, other = (NoiseTargets(40, 5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(one.targets.norm(dim=1), torch.ones(40))
    assert sorted(one.assigned.tolist()) == list(range(40))
    assert torch.equal(one.assigned, same.assigned) and not torch.equal(one.assigned, other.assigned)
    assert {"targets", "assigned"} <= one.state_dict().keys()


def test_the_best_assignment_is_that_of_all() -> None:
    scores = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(6)
    best = max(permutations(range(6)), key=lambda columns: float(scores[rows, torch.tensor(columns)].sum()))
    assert best_assignment(scores).tolist() == list(best)


def test_targets_are_exchanged_every_third_epoch_after_the_backward_pass() -> None:
    method, sizes = method_of(), view_sizes("noise_as_targets")
    for epoch in range(7):
        method.progress = Progress(epoch, 9, 1)
        before, batch = method.noise.assigned.clone(), tiny_batch(sizes, epoch, torch.float64)
        found = method.training_loss(batch)
        assert torch.equal(method.noise.assigned, before)  # not yet
        found["loss"].backward()
        method.on_after_backward()
        moved = (method.noise.assigned != before).nonzero().flatten()
        assert sorted(method.noise.assigned.tolist()) == list(range(64))
        assert set(moved.tolist()) <= set(batch.index.tolist())
        assert ("exchanged" in found) == (epoch in (0, 3, 6)) == bool(len(moved))
        if "exchanged" in found:
            assert found["exchanged"].item() == pytest.approx(len(moved) / len(batch.index))


def test_an_exchange_never_costs() -> None:
    methods, sizes = [method_of(), method_of()], view_sizes("noise_as_targets")
    losses = []
    for method, epoch in zip(methods, (0, 1), strict=True):
        method.progress = Progress(epoch, 9, 1)
        losses.append(method.training_loss(tiny_batch(sizes, 0, torch.float64))["loss"].item())
    assert losses[0] < losses[1] <= 4 * 8


def exchange(scope: str) -> list[int]:
    """Loss and assignment after a step at the start, on this rank's share of the batch."""
    method, sizes = method_of(f"method.scope={scope}"), view_sizes("noise_as_targets")
    method.progress = Progress(0, 9, 1)
    train_step(method, tiny_batch(sizes, 0, torch.float64))
    return method.noise.assigned.tolist()


def test_two_processes_exchange_among_all_samples_unless_told(pool: GlooPool) -> None:
    one = exchange("global")
    assert pool.run(exchange, "global") == [one, one]
    assert exchange("rank") == one
    two = pool.run(exchange, "rank")
    assert two[0] == two[1] != one  # each among its own four, written by both


def own_exchange(_: Any) -> bool:
    """Whether a process's rows keep their own targets in the scope of a rank."""
    noise = NoiseTargets(8, 3, torch.Generator().manual_seed(0))
    index = torch.arange(8)
    new = exchanged(torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), noise, index, "rank")
    parts = 8 // world_size()
    return all(
        sorted(new[i : i + parts].tolist()) == sorted(noise.of(index)[i : i + parts].tolist())
        for i in range(0, 8, parts)
    )


def test_a_rank_keeps_the_targets_of_its_own_samples(pool: GlooPool) -> None:
    assert pool.run(own_exchange, None) == [True, True]


def test_dropout_stands_before_the_second_layer_alone() -> None:
    words = ["method.projector.hidden=[8]", "+method.projector.norm=none", "method.dropout=0.5"]
    method, batch = method_of(*words), tiny_batch([[2, 16, 16]], dtype=torch.float64)
    h = method.backbone(batch.views[0])
    draw = batch.rng.sample("dropout")
    first, active, last = method.projector
    kept = draw.uniform("kept", 8) >= 0.5
    wanted = last(active(first(h)) * kept / 0.5)
    torch.testing.assert_close(method.project(h, draw), wanted / wanted.norm(dim=1, keepdim=True))


def test_wrong_settings_are_told() -> None:
    wrong = (("scope=ranks", "method.scope='ranks': "), ("period=0", "method.period=0: .* wants a whole number"))
    for word, told in wrong:
        with pytest.raises(ConfigError, match=told):
            build.check_signatures(config.load(["method=noise_as_targets", "data=synthetic", f"method.{word}"]))
