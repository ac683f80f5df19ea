"""Losses and searches run in float32 or better, whatever precision the networks run in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = ("cpu", "cuda")


@contextmanager
def autocast_off() -> Iterator[None]:
    """No operation inside is cast to half precision, on whatever device it runs."""
    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, DEVICES):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def promoted(value: Any) -> Any:
    """Half-precision tensors, also in lists and tuples, as float32; everything else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(promoted(item) for item in value)
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run ``function`` with autocast off and half-precision tensors (also in lists and tuples) promoted to float32.

    float32 and float64 pass unchanged. Exponentials of similarities divided by a small temperature lose their meaning
    in half precision: bfloat16 has 8 bits, so a cosine near 1 at temperature 0.05 is known to 0.08 nats only. Neither
    does a search find the nearest of many keys there, of which several have the same rounded similarity.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with autocast_off():
            named = {name: promoted(value) for name, value in kwargs.items()}
            return function(*(promoted(value) for value in args), **named)  # type: ignore[arg-type]

    return wrapped
