"""PCL with prototypes: draws, processes, scopes, and sizes that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ssl_zoo.augmentations.rng import BatchRNG
from ssl_zoo.distributed import world_size
from ssl_zoo.methods.pcl import PCL
from ssl_zoo.modules.granularity import Granularity, check_clusters
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool


def clustered(*extra: str) -> PCL:
    method = tiny_method("pcl", extra, torch.float64)
    assert isinstance(method, PCL)
    keys = torch.randn(64, method.projector.out_features, generator=torch.Generator().manual_seed(3)).double()
    method.cluster(F.normalize(keys, dim=1))
    return method


def run(*extra: str) -> dict[str, Any]:
    method, sizes = clustered(*extra), view_sizes("pcl")
    outs = [train_step(method, tiny_batch(sizes, step, torch.float64)) for step in range(3)]
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    return {"losses": losses, **outs[0]["gradients"], "queue": method.queue.keys}


@pytest.mark.slow
def test_two_processes_with_prototypes_equal_one(pool: GlooPool) -> None:
    one = run()
    for two in pool.run(run):
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_scopes_are_the_same_on_one_process_and_differ_on_two(pool: GlooPool) -> None:
    one, alone = run(), run("method.scope=rank")
    assert torch.equal(one["losses"], alone["losses"])
    two = pool.run(run, "method.scope=rank")[0]
    assert (two["losses"] < one["losses"]).all()  # fewer prototypes to tell apart


def test_the_loss_is_info_nce_until_prototypes_are_there() -> None:
    sizes = view_sizes("pcl")
    before = tiny_method("pcl", dtype=torch.float64).training_loss(tiny_batch(sizes, 0, torch.float64))
    after = clustered().training_loss(tiny_batch(sizes, 0, torch.float64))
    assert "prototype" not in before
    torch.testing.assert_close(before["loss"], after["instance"], rtol=1e-12, atol=0)
    torch.testing.assert_close(after["loss"], after["instance"] + after["prototype"], rtol=1e-12, atol=0)


def test_negatives_are_different_and_no_positives_and_drawn_evenly() -> None:
    level, seen = Granularity(4, 12, 2), torch.zeros(12)
    positives = torch.tensor([3, 3, 0, 11])
    for micro in range(300):
        draw = BatchRNG(0, 0, micro, torch.arange(4)).shared("negatives")
        negatives = level.negatives(positives, 5, draw)
        assert len(negatives.unique()) == 5 and not set(negatives.tolist()) & {0, 3, 11}
        seen[negatives] += 1
    assert seen[[0, 3, 11]].sum() == 0 and 120 < seen[seen > 0].min() and seen.max() < 220  # 300 * 5 / 9 = 167 each


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], 8, 8, 100), "method.clusters is empty"),
        (([20, 10], 8, 8, 100), "10 prototypes are fewer than method.negatives=8 and one for each of 8 samples; "
         "try method.negatives=2, or 16 clusters"),
        (([50, 200], 8, 8, 100), r"200 prototypes are more than the 100 training samples; "
         r"try method.clusters=\[12, 50\]"),
    ],
)  # fmt: skip
def test_numbers_of_prototypes_that_do_not_fit(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_clusters(*arguments)
