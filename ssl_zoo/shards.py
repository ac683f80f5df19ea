"""Tensors of which every process holds some rows (FSDP's parameters), and arithmetic on those rows alone.

What is done number by number needs no other process: moving averages, momentum, scaling. What needs a whole tensor, its
norm above all, is asked for in one collective for many. On tensors that are not split all of it is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ssl_zoo.distributed import gather, is_main, rank, world_size


def is_shard(x: Any) -> bool:
    """Whether ``x`` is a DTensor, whose class takes half as long to import as torch."""
    return isinstance(x, Tensor) and hasattr(x, "to_local")


def own(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each; it shares its memory, so that an operation in place changes the tensor."""
    return [x.to_local() if is_shard(x) else x for x in tensors]  # type: ignore[attr-defined]


def norms(tensors: list[Tensor]) -> Tensor:
    """``[N]`` norms of N whole tensors; on the device, so that nobody waits for the host."""
    return whole_norms(torch.stack(list(torch._foreach_norm(own(tensors)))), tensors)


def whole_norms(found: Tensor, of: list[Tensor]) -> Tensor:
    """``[N]`` norms of what this process holds of the tensors ``of`` -> ``[N]`` norms of the whole ones."""
    return torch.linalg.vector_norm(gather(found[None]), dim=0) if of and is_shard(of[0]) else found


def cut(whole: Tensor, like: Any) -> Tensor:
    """This process's rows of a tensor that is to be split as ``like`` is, in equal pieces but for the last ones."""
    rows = -(-len(whole) // world_size())
    return whole[rank() * rows :][:rows] if is_shard(like) else whole


@torch.no_grad()
def assign(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter new numbers, the same on every process."""
    (held,) = own([parameter])
    held.copy_(cut(value, parameter))


def split(whole: Tensor, like: Any) -> Tensor:
    """A whole tensor, split as ``like``, which has its shape, is."""
    pieces = torch.zeros_like(like, dtype=whole.dtype)
    assign(pieces, whole)
    return pieces


def whole(x: Any) -> Any:
    """All rows of a split tensor on the CPU of the main process, none elsewhere; every process must call it.

    Anything else is given back as it is.
    """
    if not is_shard(x):
        return x
    full = x.full_tensor()
    return full.cpu() if is_main() else full.new_empty(0, device="cpu")
