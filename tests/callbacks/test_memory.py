"""What a step holds, by bytes that can be counted by hand."""

from __future__ import annotations

import pytest
import torch

from ssl_zoo.callbacks.memory import MIB, Saved, StepMemory, state
from tests.callbacks.tiny import Rows, Snapshot, fit, tiny


def test_what_is_kept_for_the_gradient_counts_once() -> None:
    x = torch.ones(1000, requires_grad=True)
    with Saved() as saved:
        y = (x * x).exp()  # keeps x, twice, and its own result
    assert saved.bytes == 8000
    y.sum().backward()
    assert torch.equal(x.grad, 2 * torch.e * torch.ones(1000))


def test_parameters_do_not_count_as_activations() -> None:
    layer, x = torch.nn.Linear(10, 20, bias=False), torch.ones(5, 10)
    with Saved(set(state(layer))) as saved:
        layer(x)
    assert saved.bytes == 5 * 10 * 4 and sum(state(layer).values()) == 10 * 20 * 4


def test_each_epoch_has_its_row_and_the_sum_is_that_of_its_parts() -> None:
    rows, method = Rows(), tiny()
    fit([StepMemory()], method=method, logger=rows, max_epochs=2)
    held = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    assert list(rows.column("memory/state_mib").values()) == [held / MIB] * 2
    for row in rows.rows.values():
        if "memory/step_mib" in row:
            assert row["memory/step_mib"] == row["memory/state_mib"] + row["memory/activations_mib"]
            assert row["memory/activations_mib"] * MIB > 12 * 16 * 4  # the batch after the first layer


def test_looking_changes_nothing() -> None:
    seen = []
    for callbacks in ([], [StepMemory()]):
        snapshot = Snapshot()
        fit([*callbacks, snapshot], max_epochs=2)
        seen.append(snapshot.seen[-1])
    (with_out, with_it) = (entry[0] for entry in seen)
    assert with_out.keys() == with_it.keys()
    assert all(torch.equal(with_out[key], with_it[key]) for key in with_out)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_pass_without_gradient_keeps_nothing(frozen: bool) -> None:
    x = torch.ones(7, requires_grad=not frozen)
    with Saved() as saved:
        x.exp()
    assert saved.bytes == (0 if frozen else 28)
