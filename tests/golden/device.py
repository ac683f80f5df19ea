"""Everything that a test makes lies on a device, and what it compares comes back: for code written for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

TO_NUMPY = {Tensor.numpy, Tensor.__array__}


class OnDevice(TorchFunctionMode):
    """New tensors lie on ``device``, unless they are drawn by a generator of the CPU, whose numbers are moved there."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in TO_NUMPY:
            return func(args[0].cpu(), *args[1:], **kwargs)
        if func not in _device_constructors() or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        generator = kwargs.get("generator")
        here = generator is not None and generator.device != self.device
        made = func(*args, **{**kwargs, "device": generator.device if here else self.device})
        return made.to(self.device) if here else made


def everything_on(device: str) -> None:
    """From now on and in this process, with convolutions in whole float32; nothing changes for ``cpu``."""
    if device != "cpu":
        torch.backends.cudnn.allow_tf32 = False
        OnDevice(device).__enter__()
