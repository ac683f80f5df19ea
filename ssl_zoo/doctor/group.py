"""Between the processes: how fast they sum, and whether ``gather`` has the gradients of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_zoo import distributed
from ssl_zoo.doctor.findings import Finding, amount, fault, short

SMALL, LARGE = 1 << 10, 1 << 24  # float32 numbers: 4 kB for the delay, 64 MB for the speed
SLOW_NETWORK = 1e9  # bytes a second between GPUs of several hosts, below which something is set up wrong
SHAPES = ((3, 4), (256, 1024))  # rows of a process and their width: 96 B, and 2 MiB
TOLERANCE = 1e-10  # of gradients in float64, relative to the largest


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def all_reduce(device: torch.device, rounds: int = 5) -> tuple[float, float, bool]:
    """Sum tensors over all processes.

    Returns:
        Seconds of a small and of a large one, the best of some rounds, and whether the sums are right.
    """
    best, right = [], True
    wanted = sum(range(1, distributed.world_size() + 1))
    for size in (SMALL, LARGE):
        seconds = []
        for _ in range(rounds + 1):
            x = torch.full((size,), distributed.rank() + 1.0, device=device)
            distributed.barrier()
            wait(device)
            began = time.perf_counter()
            distributed.all_reduce_sum_(x)
            wait(device)
            seconds.append(time.perf_counter() - began)
            right &= bool((x == wanted).all())
        best.append(min(seconds[1:]))  # the first one opens connections
    return best[0], best[1], right


def judge_all_reduce(small: float, large: float, right: bool, world: int, hosts: int, device: str) -> Finding:
    """Judge what :func:`all_reduce` has measured; the speed is that of a link, as NCCL's own tests count."""
    speed = 2 * (world - 1) / world * 4 * LARGE / large
    told = f"{amount(4 * SMALL)} in {short(small)}, {amount(4 * LARGE)} in {short(large)} ({amount(speed)}/s)"
    if not right:
        return fault(
            "all-reduce", f"{told}, and the sums are wrong",
            "do not train here: a link or a driver is broken; run nccl-tests, try NCCL_P2P_DISABLE=1 and "
            "NCCL_IB_DISABLE=1 one at a time to see which way it is, and tell the site",
        )  # fmt: skip
    if device == "cuda" and hosts > 1 and speed < SLOW_NETWORK:
        return Finding("all-reduce", told, "the hosts seem to talk over a slow network: see with NCCL_DEBUG=INFO which "
                                           "one is taken, and name another with NCCL_SOCKET_IFNAME")  # fmt: skip
    return Finding("all-reduce", told)


def gradient_error(device: torch.device, shapes: Sequence[tuple[int, int]] = SHAPES) -> float:
    """How far gradients through ``gather``, after DDP's mean, are from those of one process with all rows; relative."""
    return max(_error(rows, width, device) for rows, width in shapes)


def _error(rows: int, width: int, device: torch.device) -> float:
    draws = torch.Generator().manual_seed(0)
    world = distributed.world_size()
    every = torch.randn(world * rows, width, dtype=torch.float64, generator=draws).to(device)
    weight = torch.ones(width, dtype=torch.float64, device=device, requires_grad=True)
    (alone,) = torch.autograd.grad(_loss(every * weight, every * weight), weight)
    z = distributed.own_rows(every) * weight
    (own,) = torch.autograd.grad(_loss(z, distributed.gather(z)), weight)
    together = distributed.all_reduce_sum_(own.contiguous()) / world  # as DDP does
    return float((together - alone).abs().max() / alone.abs().max())


def _loss(queries: Tensor, keys: Tensor) -> Tensor:
    """A mean over the queries that depends on all keys."""
    return (queries @ keys.T / queries.shape[1]).logsumexp(1).mean()


def judge_gradient(error: float) -> Finding:
    told = f"its gradients are {'not ' if not error <= TOLERANCE else ''}those of one process (largest difference "
    told += f"{error:.1e} of the largest)"
    if error <= TOLERANCE:
        return Finding("gather", told)
    return fault("gather", told, "do not train on several processes here: results would not be those of one; please "
                                 "report it with the versions above")  # fmt: skip


def judge_weights(sums: Sequence[float]) -> Finding:
    """Whether all processes have the same weights after two steps.

    Args:
        sums: Of each, by rank.
    """
    others = [rank for rank, value in enumerate(sums) if value != sums[0]]
    if not others:
        return Finding("weights", f"equal on all {len(sums)} processes after two steps")
    told = f"process {others[0]} of {len(sums)} has other weights than process 0 after two steps"
    return fault("weights", told, "do not train here: gradients are not the same on all processes; see all-reduce, and "
                                  "whether all hosts have the same versions")  # fmt: skip
