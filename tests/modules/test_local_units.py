"""Local units: their gradients, where they stop, and what they save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.modules.local_units import train_locally

WIDTH, STAGES = 6, 4


def chain(stages: int = STAGES, width: int = WIDTH) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(stages)).double()


def heads_of(depth: int, stages: int = STAGES, width: int = WIDTH) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, 3) for _ in range(stages - depth + 1)).double()


def views(rows: int = 5, width: int = WIDTH) -> list[Tensor]:
    return list(torch.randn(2, rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def unit_loss(head: nn.Module, maps: Sequence[Tensor]) -> Tensor:
    a, b = (head(x) for x in maps)
    return (a * b).square().sum(1).mean()


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters()]


@pytest.mark.parametrize("depth", [1, 2, 3, STAGES])
def test_each_unit_is_differentiated_as_if_it_stood_alone(depth: int) -> None:
    stages, heads = chain(), heads_of(depth)
    out = train_locally(stages, list(heads), views(), unit_loss, depth)
    out.loss.backward()
    found = gradients(stages) + gradients(heads)
    for p in [*stages.parameters(), *heads.parameters()]:
        p.grad = None
    losses = []
    for unit, head in enumerate(heads):  # the definition: run up to the unit without gradient, then through it
        x = views()
        for number, stage in enumerate(stages[: unit + depth]):
            x = [stage(v.detach() if number == unit else v) for v in x]
        losses.append(unit_loss(head, x))
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(torch.stack(out.losses), torch.stack(losses).detach(), rtol=1e-12, atol=0)
    for one, two in zip(found, gradients(stages) + gradients(heads), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-15)


def reach(depth: int) -> list[list[bool]]:
    """[unit][stage]: whether the loss of a unit alone gives the stage a gradient."""
    table = []
    for unit in range(STAGES - depth + 1):
        stages, heads = chain(), list(heads_of(depth))

        def only(head: nn.Module, maps: Sequence[Tensor], wanted: nn.Module = heads[unit]) -> Tensor:
            return unit_loss(head, maps) * float(head is wanted)

        train_locally(stages, heads, views(), only, depth).loss.backward()
        table.append([bool(stage[0].weight.grad.any()) for stage in stages])
    return table


def test_which_stage_learns_from_which_loss():
    assert reach(1) == [[i == j for j in range(4)] for i in range(4)]  # Greedy InfoMax
    assert reach(2) == [  # LoCo: the stages inside learn from two losses
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]
    assert reach(4) == [[True] * 4]  # end to end


class Ledger:
    """Bytes that autograd keeps for backward passes, now and at most; parameters do not count."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.held: dict[int, int] = {}

    def pack(self, x: Tensor) -> Any:
        return x if isinstance(x if x._base is None else x._base, nn.Parameter) else _Kept(self, x)

    def unpack(self, x: Any) -> Tensor:
        return x.tensor if isinstance(x, _Kept) else x


class _Kept:
    def __init__(self, ledger: Ledger, tensor: Tensor) -> None:
        self.ledger, self.tensor, self.place = ledger, tensor, tensor.untyped_storage().data_ptr()
        if not ledger.held.get(self.place):
            ledger.now += tensor.untyped_storage().nbytes()
            ledger.most = max(ledger.most, ledger.now)
        ledger.held[self.place] = ledger.held.get(self.place, 0) + 1

    def __del__(self) -> None:
        self.ledger.held[self.place] -= 1
        if not self.ledger.held[self.place]:
            self.ledger.now -= self.tensor.untyped_storage().nbytes()


def peak(depth: int, stages: int, rows: int = 64, width: int = 32) -> int:
    ledger = Ledger()
    net = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(stages)).double()
    heads = list(heads_of(depth, stages, width))
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, ledger.unpack):
        train_locally(net, heads, views(rows, width), unit_loss, depth)
    return ledger.most


def test_activations_of_a_unit_are_kept_instead_of_those_of_the_network():
    stages = 8
    greedy, local, whole = (peak(depth, stages) for depth in (1, 2, stages))
    assert greedy < local < whole / 2
    assert peak(2, 2 * stages) == local  # a deeper network needs no more
    assert peak(2 * stages, 2 * stages) > 1.8 * whole
