"""The only user of ``torch.distributed``: what processes tell each other, one word each.

Every function is the identity for a single process. Differentiable collectives follow one convention: a rank's
loss is its own share, gradients are those of the *sum* of all ranks' losses, and the mean that DDP takes afterwards
makes them the gradient of the loss on the concatenated batch (``docs/distributed.md`` has the two lines of proof).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

BLOCK = 1 << 22  # bytes that travel at a time where results are exchanged that may fill the memory


def _active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def barrier() -> None:
    if _active():
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """What rank 0 has done when the others begin: what it has fetched, they find."""
    main = is_main()
    if not main:
        barrier()
    try:
        yield
    finally:
        if main:
            barrier()


def leave() -> bool:
    """Part for good: all ranks wait for one another, and each is a single process from here on.

    Returns:
        Whether this one was rank 0, which does alone what remains.
    """
    main = is_main()
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
    return main


def all_reduce_sum_(x: Tensor) -> Tensor:
    """Sum ``x`` over ranks, in place and outside autograd."""
    if _active():
        dist.all_reduce(x)
    return x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return own_rows(all_reduce_sum_(grad.contiguous().clone()))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce_sum_(x.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return all_reduce_sum_(grad.contiguous().clone())


def gather(x: Tensor) -> Tensor:
    """Concatenate equal numbers of rows of all ranks: ``[B, ...]`` -> ``[W * B, ...]``; backward sums over ranks."""
    return _Gather.apply(x) if _active() else x


def own_rows(x: Tensor) -> Tensor:
    """This rank's rows of a global tensor: the inverse of :func:`gather`."""
    rows = len(x) // world_size()
    return x[rank() * rows : (rank() + 1) * rows]


def sum_over_ranks(x: Tensor) -> Tensor:
    """Differentiable sum over ranks; backward sums over ranks."""
    return _Sum.apply(x) if _active() else x


def mean_over_ranks(x: Tensor) -> Tensor:
    """Differentiable mean over ranks."""
    return sum_over_ranks(x) / world_size() if _active() else x


def mean_of_chosen(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen rows of all ranks, as this rank's share of it.

    Args:
        values: ``[B]`` of this rank's rows.
        chosen: ``[B]`` bool: which of them count.

    Returns:
        A scalar whose mean over the ranks is that of the chosen rows; 0 if no rank has any.
    """
    count = sum_over_ranks(chosen.sum().to(values.dtype)).clamp_min(1)
    return values.where(chosen, 0.0).sum() * world_size() / count


def exchange_(x: Tensor, places: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """Fill in the rows of ``x`` that other ranks have, in blocks: a block is all that it takes besides.

    Args:
        x: ``[N, ...]`` in main memory, of one shape and type on all ranks; this rank has filled in its own rows.
        places: ``[n]`` for each rank: which rows are its.
        device: Where this rank computes; blocks travel from there if it is a GPU.
    """
    if not _active():
        return x
    rows = max(BLOCK // max(x[0].nbytes, 1), 1)
    for source, held in enumerate(places):
        for place in held.split(rows) if len(held) else ():
            mine = source == rank()
            block = x[place].to(device) if mine else x.new_empty(len(place), *x.shape[1:], device=device)
            dist.broadcast(block, source)
            if not mine:
                x[place] = block.to(x.device)
    return x


def gather_lists(items: list[Any]) -> list[Any]:
    """Concatenate short lists of small picklable items, of unequal lengths, in the order of ranks."""
    if not _active():
        return items
    parts: list[list[Any]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def broadcast_object(item: Any) -> Any:
    """Rank 0's picklable ``item`` on every rank."""
    if not _active():
        return item
    box = [item]
    dist.broadcast_object_list(box)
    return box[0]


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` holds on any rank; all ranks must call it at the same place."""
    return bool(highest(int(flag)))


def highest(number: int) -> int:
    """The largest ``number`` of any rank; all ranks must call it at the same place."""
    return highest_soon(number)()


def highest_soon(number: int) -> Callable[[], int]:
    """The largest ``number`` of any rank, on its way; all ranks must call this at the same place.

    It goes from main memory to main memory, whatever the GPUs still have to do.

    Returns:
        A function that gives it. Called a step later, when every rank has long been here, it does not wait.
    """
    if not _active():
        return lambda: number
    found = torch.tensor(number, device="cpu")
    work = dist.all_reduce(found, dist.ReduceOp.MAX, _hosts(), async_op=True)

    def arrived() -> int:
        work.wait()
        return int(found)

    return arrived


_host_groups: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # by process group


def _hosts() -> Any:
    """A group of all ranks that takes tensors in main memory: the one there is, unless it is NCCL's alone."""
    world = dist.group.WORLD
    if world not in _host_groups:
        takes = "cpu:" in dist.get_backend_config()
        _host_groups[world] = world if takes else dist.new_group(backend="gloo")
    return _host_groups[world]


@torch.no_grad()
def shuffled(module: nn.Module, x: Tensor, draw: Any) -> Tensor:
    """Shuffled batch norm of MoCo (Sec. 3.3): forward ``x`` with the rows of the global batch in another order.

    Rows are exchanged between ranks, so that a key's batch statistics come from other samples than its query's.

    Args:
        module: The key network; runs without gradient.
        x: ``[B, ...]`` local rows.
        draw: Shared draw; ``draw.permutation(n)`` gives the order of the ``n = W * B`` global rows.

    Returns:
        ``[B, D]`` outputs of the local rows, in their own order.
    """
    order = draw.permutation(len(x) * world_size()).to(x.device)
    out = module(own_rows(gather(x)[order]))
    return own_rows(gather(out)[order.argsort()])
