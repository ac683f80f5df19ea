"""Averages keep moving where the networks are in half precision: by number."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_zoo.methods.base import Method
from ssl_zoo.modules.batch_norm import convert
from ssl_zoo.modules.centre import Centre
from ssl_zoo.modules.covariance import RunningMoments
from ssl_zoo.modules.ema import EMA, IN_CACHE
from ssl_zoo.modules.experts import ExpertCentres
from ssl_zoo.modules.memory_bank import MemoryBank
from ssl_zoo.optim.recipe import OptimizerRecipe

UPDATES, MOMENTUM = 2000, 0.999
WAY = 1 - MOMENTUM**UPDATES  # 0.8648 of the way from the start to where all updates point
HALVES = (torch.bfloat16, torch.float16)


def teacher(half: torch.dtype, side: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Start, aim and end of a parameter of a teacher."""
    student = nn.Linear(side, side)
    ema = EMA(student)
    start = ema.net.weight.detach().clone()
    nn.ModuleList([student, ema]).to(half)
    with torch.no_grad():
        student.weight.add_(1.0)
    for _ in range(UPDATES):
        ema.update(student, MOMENTUM)
    assert ema.net.weight.dtype == half
    torch.testing.assert_close(ema.net.weight, ema.state_dict()["net.weight"].to(half))
    return start, student.weight.detach(), ema.state_dict()["net.weight"]


def centre(half: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    module = Centre(4, MOMENTUM).to(half)
    rows = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=half)
    for _ in range(UPDATES):
        module.update(rows)
        module.commit()
    return torch.zeros(1, 4), rows, module.value


def covariance(half: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    module, z = RunningMoments(2, MOMENTUM).to(half), torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=half)
    for _ in range(UPDATES):
        module(z)
        module.commit()
    return torch.zeros(2, 2), z.double().T @ z.double() / 2, module.moments


class Norms(Method):
    """Nothing but batch norms."""

    def __init__(self) -> None:
        net: Any = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, momentum=1 - MOMENTUM))
        super().__init__(net, OptimizerRecipe(partial(torch.optim.SGD), {"lr": 0.1}))
        convert(self)


def statistics(half: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Of the variance; the mean has the other argument of the same call."""
    norm: Any = Norms().to(half).train().backbone[1]
    x = 3 * torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(half)
    for _ in range(UPDATES):
        assert norm(x).dtype == half
    mean = x.double().mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean.double(), WAY * mean, rtol=1e-3, atol=1e-5)
    return torch.ones(3), x.double().var((0, 2, 3)), norm.running_var


AVERAGES: dict[str, Callable[[torch.dtype], tuple[Tensor, Tensor, Tensor]]] = {
    "teacher": teacher,
    "large teacher": partial(teacher, side=int(IN_CACHE**0.5) + 1),
    "centre": centre,
    "covariance": covariance,
    "running statistics": statistics,
}


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES.keys())
def test_2000_updates_at_0999_go_86_percent_of_the_way(average: Callable[..., Any], half: torch.dtype) -> None:
    start, aim, end = (x.double() for x in average(half))
    torch.testing.assert_close(end, start + WAY * (aim - start), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_a_bank_moves_as_the_same_updates_in_float64(half: torch.dtype) -> None:
    bank, index = MemoryBank(3, 4, MOMENTUM).to(half), torch.tensor([1])
    new = torch.tensor([[0.6, 0.8, 0.0, 0.0]], dtype=half)
    row = bank.keys[1].double()
    for _ in range(UPDATES):
        bank.update(index, new)
        bank.commit()
        row = nn.functional.normalize(MOMENTUM * row + (1 - MOMENTUM) * new[0].double(), dim=0)
    torch.testing.assert_close(bank.keys[1].double(), row, rtol=1e-3, atol=1e-4)


def test_a_bank_keeps_the_type_that_was_chosen_for_it() -> None:
    assert MemoryBank(3, 4, dtype="float16").to(torch.bfloat16).keys.dtype == torch.float16
    assert MemoryBank(3, 4).to(torch.float64).keys.dtype == torch.float64


def test_sums_of_an_epoch_count_every_sample() -> None:
    sums = ExpertCentres(2, 3).to(torch.bfloat16)
    for _ in range(1000):
        sums.add(torch.ones(1, 2, 3, dtype=torch.bfloat16), torch.tensor([1]))
        sums.commit()
    assert sums.sums.tolist() == [[0.0] * 3, [1000.0] * 3]  # bfloat16 cannot count beyond 256


def ema() -> tuple[nn.Module, EMA]:
    """A student, and its teacher on the way to it."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    found = EMA(student)
    nn.ModuleList([student, found]).to(torch.bfloat16)
    with torch.no_grad():
        student[0].weight.add_(1.0)
    found.update(student, MOMENTUM)
    return student, found


def test_a_checkpoint_holds_a_teacher_in_float32_under_its_own_names() -> None:
    _, half = ema()
    state = half.state_dict()
    assert {name: value.dtype for name, value in state.items()} == dict.fromkeys(
        EMA(ema()[0]).state_dict(), torch.float32
    )
    assert not torch.equal(state["net.0.weight"], state["net.0.weight"].bfloat16().float())
    whole = EMA(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    whole.load_state_dict(state)
    assert torch.equal(whole.net[0].weight, state["net.0.weight"])  # type: ignore[index]


@pytest.mark.parametrize("cast_first", [True, False])
def test_a_teacher_goes_on_from_its_checkpoint_bit_for_bit(cast_first: bool) -> None:
    student, half = ema()
    again = EMA(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    again = again.to(torch.bfloat16) if cast_first else again
    again.load_state_dict(half.state_dict())
    again.to(torch.bfloat16)
    for each in (half, again):
        each.update(student, MOMENTUM)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in half.state_dict().items())
    assert all(torch.equal(x, y) for x, y in zip(half.net.parameters(), again.net.parameters(), strict=True))


def test_a_copy_of_a_teacher_and_one_cast_back_have_all_its_bits() -> None:
    student, half = ema()
    state, copy = half.state_dict(), deepcopy(half)
    copy.update(student, MOMENTUM)
    assert not torch.equal(copy.state_dict()["net.0.weight"], state["net.0.weight"])
    assert all(torch.equal(x, state[f"net.{name}"]) for name, x in half.float().net.named_parameters())


def test_a_teacher_of_which_the_copy_alone_was_cast_moves_too() -> None:
    student, teacher = nn.Linear(3, 4), EMA(nn.Linear(3, 4))
    teacher.net.to(torch.bfloat16)
    before = teacher.net.weight.double()
    for _ in range(UPDATES):
        teacher.update(student, MOMENTUM)
    expected = before + WAY * (student.weight.double() - before)
    torch.testing.assert_close(teacher.state_dict()["net.weight"].double(), expected, rtol=1e-3, atol=1e-4)


def test_weights_are_cast_and_batch_norms_of_a_method_are_not() -> None:
    method = Norms().to(torch.bfloat16)
    kinds = {name: x.dtype for name, x in method.state_dict().items() if x.is_floating_point()}
    assert {name for name, kind in kinds.items() if kind == torch.bfloat16} == {"backbone.0.weight", "backbone.0.bias"}
    assert set(kinds.values()) == {torch.bfloat16, torch.float32} and method.dtype == torch.bfloat16
    assert {x.dtype for x in Norms().to(torch.float64).parameters()} == {torch.float64}
