"""Losses run in float32 or better, whatever precision the networks run in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, (list, tuple)) else []


def _promoted(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_promoted(item) for item in value)
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with autocast off and half-precision tensors (also in lists and tuples) promoted to float32.

    float32 and float64 pass unchanged. Exponentials of similarities divided by a small temperature lose their meaning
    in half precision: bfloat16 has 8 bits, so a cosine near 1 at temperature 0.05 is known to 0.08 nats only.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = _tensors([*args, *kwargs.values()])
        with torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False):
            named = {name: _promoted(value) for name, value in kwargs.items()}
            return function(*(_promoted(value) for value in args), **named)  # type: ignore[arg-type]

    return wrapped
