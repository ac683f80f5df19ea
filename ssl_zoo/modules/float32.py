"""State that keeps its precision where the networks are cast to a half type (``trainer.precision=bf16-true``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

HALF = (torch.float16, torch.bfloat16)


class Float32State(nn.Module):
    """Floating-point buffers of the module's own, not of its children, are left as they are by a cast to a half type.

    A moving average cannot move in bfloat16: 0.999 of a number plus 0.001 of another, rounded to 8 bits, is the number.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype in HALF and old.dtype != new.dtype:
                self._buffers[name] = old.to(new.device)
        return self


@contextmanager
def norms_in_float32(module: nn.Module) -> Iterator[None]:
    """Around a cast of ``module`` to a half type: its batch norms keep their running statistics, and their weights too.

    All kernels take such norms for inputs in half precision, as they do under autocast; few take half weights beside
    statistics in float32.
    """
    before = [(norm, _tensors(norm)) for norm in module.modules() if isinstance(norm, _BatchNorm)]
    yield
    for norm, held in before:
        for name, tensor in _tensors(norm).items():
            if tensor.dtype in HALF and held[name].dtype not in HALF:
                getattr(norm, name).data = held[name].to(tensor.device)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    return {name: tensor.data for name, tensor in own}
