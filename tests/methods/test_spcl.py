"""SpCL: the two domains' losses on any number of processes, and what evaluation reads."""

from __future__ import annotations

from typing import Any

import torch

from ssl_zoo.distributed import world_size
from ssl_zoo.losses.hybrid import hybrid_memory
from ssl_zoo.methods.spcl import SpCL
from tests.helpers import tiny_batch, tiny_method, train_step, view_sizes
from tests.pool import GlooPool


def method_of(*extra: str) -> SpCL:
    method = tiny_method("spcl", extra, torch.float64)
    assert isinstance(method, SpCL)
    return method


def adapt() -> dict[str, Any]:
    """Steps on batches of both domains: label 0 and 1 are a source, the others have none."""
    method, outs = method_of("method.source=true"), []
    for step in range(3):
        batch = tiny_batch(view_sizes("spcl"), step, torch.float64)
        assert batch.label is not None
        batch.label = torch.where(batch.label < 2, batch.label, -1)
        outs.append(train_step(method, batch))
    losses = torch.stack([out["loss"] for out in outs])
    if world_size() > 1:
        torch.distributed.all_reduce(losses)
        losses /= world_size()
    return {"losses": losses, **outs[0]["gradients"], "memory": method.memory.features}


def test_two_processes_with_two_domains_equal_one(pool: GlooPool) -> None:
    one = adapt()
    for two in pool.run(adapt):
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-10, atol=1e-10)


def test_the_loss_is_the_sum_of_the_domains_means() -> None:
    method = method_of("method.source=true")
    batch = tiny_batch(view_sizes("spcl"), 0, torch.float64)
    batch.label = torch.tensor([0, -1, -1, 1, 0, -1, -1, -1])
    method.memory.labels[4:] = torch.arange(64) % 7 + 4
    out = method.training_loss(batch)
    row = torch.where(batch.label >= 0, batch.label, 4 + batch.index)
    memory = method.memory
    losses = hybrid_memory(out["features"], memory.features, memory.labels, memory.labels[row], 11, 0.05)
    source = batch.label >= 0
    torch.testing.assert_close(out["loss"], losses[source].mean() + losses[~source].mean(), rtol=1e-12, atol=0)


def test_labels_are_not_read_without_a_source() -> None:
    with_labels, without = (tiny_batch(view_sizes("spcl"), 0, torch.float64) for _ in range(2))
    without.label = None
    assert torch.equal(*(method_of().training_loss(batch)["loss"] for batch in (with_labels, without)))


def test_evaluation_reads_unit_features_behind_the_norm() -> None:
    method = method_of().eval()
    view = tiny_batch(view_sizes("spcl"), 0, torch.float64).views[0]
    z = method.embed(view)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8).double())
    torch.testing.assert_close(z, torch.nn.functional.normalize(method.neck(method.backbone(view)), dim=1))
    assert [name for name, _ in method.neck.named_parameters()] == ["weight"]  # no offset
