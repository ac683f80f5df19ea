"""Losses compute in float32 or better under any precision."""

import torch
from torch import Tensor

from ssl_zoo.losses.precision import autocast_off, full_precision


@full_precision
def dtypes(x: Tensor, others: list[Tensor], scale: float = 1.0) -> list[torch.dtype]:
    return [(x @ x.T).dtype, *(other.dtype for other in others)]


def test_half_types_are_promoted_also_inside_lists():
    half, brain, double = (torch.ones(2, 2, dtype=t) for t in (torch.float16, torch.bfloat16, torch.float64))
    assert dtypes(half, [brain, double]) == [torch.float32, torch.float32, torch.float64]
    assert dtypes(double, others=[half], scale=2.0) == [torch.float64, torch.float32]


def test_autocast_is_off_inside_and_on_again_after():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dtypes(x, []) == [torch.float32]
        assert (x @ x).dtype == torch.bfloat16


def test_gradient_reaches_a_half_input_in_its_own_type():
    x = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    full_precision(lambda x: x.square().sum())(x).backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16 and x.grad.tolist() == [2.0, 2.0, 2.0]


def test_autocast_is_off_on_every_device_wherever_the_arguments_lie():
    with torch.autocast("cpu", torch.bfloat16), autocast_off():
        assert not any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        with torch.autocast("cpu", torch.float16):  # whoever asks for it inside gets it
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float16
