"""DeepCluster-v2 between clusterings: what is remembered, who has a label, processes and scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ssl_zoo import build
from ssl_zoo.augmentations.rng import Draw, stream_key
from ssl_zoo.data.batch import Batch
from ssl_zoo.distributed import rank, world_size
from ssl_zoo.errors import ConfigError
from ssl_zoo.methods.deepcluster_v2 import NONE, DeepClusterV2
from ssl_zoo.optim.schedules import Progress
from tests.helpers import ROWS, info, tiny_batch, tiny_config, tiny_method, train_step, view_sizes
from tests.pool import GlooPool

EXACT = torch.float64
MULTI = "augmentation=swav/small_multicrop"


def draw(epoch: int = 0) -> Draw:
    return Draw(stream_key(0, "clusters", epoch), None)


def clustered(*extra: str, clusters: Sequence[int] = (6, 5, 4)) -> DeepClusterV2:
    """Samples 0 to 47 were seen; the others have no label."""
    cfg = tiny_config("deepcluster_v2", extra)
    cfg.method.clusters = list(clusters)
    method = build.build_method(cfg, info()).to(EXACT).train()
    assert isinstance(method, DeepClusterV2)
    method.progress = Progress(step=2, total=10, steps_per_epoch=4)
    method.bind(ROWS)
    method.memory.seen[:48] = True
    method.cluster(draw())
    return method


def batches(*extra: str) -> list[Batch]:
    """The first rank has more samples without a label than the second."""
    found = [tiny_batch(view_sizes("deepcluster_v2", extra), step, EXACT) for step in range(3)]
    for step, batch in enumerate(found):
        order = torch.tensor([50, 60, 3, 55, 12, 7, 30, 63]).roll(8 * step) + torch.tensor([0, 0, step, 0] * 2)
        batch.index = order[rank() * len(batch.index) :][: len(batch.index)]
    return found


def run(*extra: str) -> dict[str, Any]:
    views = [option for option in extra if option.startswith("augmentation")]
    method = clustered(*extra)
    outs = [train_step(method, batch) for batch in batches(*views)]
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    method.cluster(draw(1))
    state = {f"bank{i}": bank.keys for i, bank in enumerate(method.memory.banks)}
    return {"losses": losses, **outs[0]["gradients"], **state, "assignments": method.assignments}


@pytest.mark.parametrize("extra", [pytest.param([], marks=pytest.mark.slow), [MULTI]])
@pytest.mark.slow
def test_two_processes_with_unlabelled_samples_equal_one(extra: list[str], pool: GlooPool) -> None:
    one = run(*extra)
    for two in pool.run(run, *extra):
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_scopes_are_the_same_on_one_process_and_differ_on_two(pool: GlooPool) -> None:
    one, alone = run(), run("method.scope=rank")
    assert torch.equal(one["losses"], alone["losses"])
    assert not torch.allclose(pool.run(run, "method.scope=rank")[0]["losses"], one["losses"], rtol=1e-6)


def test_only_what_the_epoch_saw_has_a_label_and_banks_take_turns() -> None:
    method = clustered()
    assert (method.assignments[:, 48:] == NONE).all() and (method.assignments[:, :48] >= 0).all()
    assert not method.memory.seen.any()
    for h, bank in enumerate((0, 1, 0)):
        z, centroids = method.memory.banks[bank].keys[:48], method.prototypes[h].weight
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(len(centroids)).double())
        assert torch.equal((z @ centroids.T).argmax(1), method.assignments[h, :48])


def test_embeddings_are_remembered_after_the_step_from_before_it() -> None:
    method = clustered()
    batch = batches()[0]
    before = [bank.keys.clone() for bank in method.memory.banks]
    with torch.no_grad():
        h = torch.cat([method.backbone(torch.cat(batch.views))])
        z = torch.nn.functional.normalize(method.projector(h), dim=1).chunk(2)
    train_step(method, batch)
    for i, bank in enumerate(method.memory.banks):
        torch.testing.assert_close(bank.keys[batch.index], z[i])
        others = torch.ones(64, dtype=torch.bool).index_fill(0, batch.index, False)
        assert torch.equal(bank.keys[others], before[i][others])
    assert method.memory.seen.nonzero().flatten().tolist() == batch.index.sort().values.tolist()


def test_prototypes_stay_where_k_means_put_them() -> None:
    method = clustered()
    before = [prototypes.weight.clone() for prototypes in method.prototypes]
    gradients = train_step(method, batches()[0])["gradients"]
    assert not [name for name in gradients if name.startswith("prototypes")]
    assert all(torch.equal(a, p.weight) for a, p in zip(before, method.prototypes, strict=True))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("clusters", [65], r"method.clusters=\[65\]: wanted one or more, each 2 to 64, the samples of an epoch"),
        ("clusters", [], r"method.clusters=\[\]: wanted one or more"),
        ("banks", 0, "method.banks=0: wanted 1 or more"),
        ("scope", "ranks", "method.scope=ranks: .*'rank'"),
        ("bank_dtype", "float8", "bank_dtype=float8"),
    ],
)
def test_what_does_not_fit_is_refused(option: str, value: Any, words: str) -> None:
    cfg = tiny_config("deepcluster_v2")
    cfg.method[option] = value
    with pytest.raises((ValueError, ConfigError), match=words):
        build.build_method(cfg, info())


def test_an_epoch_that_saw_too_little_is_refused() -> None:
    method = clustered()
    method.memory.seen[:5] = True
    with pytest.raises(ValueError, match="method.clusters: 6 of the 5 samples of an epoch"):
        method.cluster(draw())


def test_more_banks_than_views_are_refused() -> None:
    method = tiny_method("deepcluster_v2", ["method.banks=3"])
    with pytest.raises(ValueError, match="method.banks=3 views are remembered and a batch has 2"):
        method.training_loss(tiny_batch(view_sizes("deepcluster_v2")))
