"""(c) NT-Xent, forward and backward, time and memory."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.benchmarks.rows import Case, Measured, Run
from ssl_zoo.benchmarks.timing import peak_memory
from ssl_zoo.losses.contrastive import nt_xent

WIDTH = 128
TEMPERATURE = 0.1
WARM = 64  # pairs of a first call, by which libraries allocate what they keep

Loss = Callable[[Tensor, Tensor], Tensor]


def ours() -> Loss:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        a, b = F.normalize(x, dim=1), F.normalize(y, dim=1)
        return nt_xent(a, b, a, b, 0, TEMPERATURE)

    return loss


def lightly() -> Loss:
    from lightly.loss import NTXentLoss

    return NTXentLoss(TEMPERATURE, gather_distributed=False)


def metric_learning() -> Loss:
    from pytorch_metric_learning.losses import NTXentLoss

    inner = NTXentLoss(TEMPERATURE)  # cosine: it normalises, too
    return lambda x, y: inner(torch.cat([x, y]), torch.arange(len(x)).repeat(2))


def step(make: Callable[[], Loss], pairs: int) -> Callable[[], Tensor]:
    """A call that computes the loss of ``pairs`` random pairs and its gradient, and returns the loss."""
    loss = make()
    _backward(loss, torch.randn(2, WARM, WIDTH))
    x = torch.randn(2, pairs, WIDTH, generator=torch.Generator().manual_seed(0))
    return lambda: _backward(loss, x)


def _backward(loss: Loss, x: Tensor) -> Tensor:
    a, b = (part.requires_grad_() for part in x.detach().unbind())
    value = loss(a, b)
    value.backward()
    return value.detach()


def seconds(run: Run, pairs: int, peer: Callable[[], Loss], rounds: int = 5) -> Measured:
    pairs = run.pick(pairs, 64)
    return run.race(step(ours, pairs), lambda: step(peer, pairs), rounds)


def memory(run: Run, pairs: int) -> Measured:
    """Peak beyond the inputs; each side in a process of its own."""
    pairs = run.pick(pairs, 64)

    def peak(make: Callable[[], Loss]) -> list[float]:
        # The kernel counts whole pages: a call too small to need a new one counts as one page.
        return [max(run.child(peak_memory, step, (make, pairs), run.cores), 4 / 1024)]

    return Measured(peak(ours), peak(lightly) if run.peer else None)


def _case(name: str, measure: Any, unit: str, bar: str | None = None) -> Case:
    return Case(name, measure, unit, "lightly NTXentLoss", needs="lightly", bar=bar, cores=2)


CASES = [
    _case("ntxent_time_vs_lightly", functools.partial(seconds, pairs=8192, peer=lightly), "s", ">= 3"),
    _case("ntxent_memory_vs_lightly", functools.partial(memory, pairs=8192), "MiB", ">= 20"),
    _case("ntxent_time_512_vs_lightly", functools.partial(seconds, pairs=512, peer=lightly, rounds=15), "s"),
    _case("ntxent_time_2048_vs_lightly", functools.partial(seconds, pairs=2048, peer=lightly, rounds=9), "s"),
    _case("ntxent_memory_512_vs_lightly", functools.partial(memory, pairs=512), "MiB"),
    _case("ntxent_memory_2048_vs_lightly", functools.partial(memory, pairs=2048), "MiB"),
    Case(
        "ntxent_time_256_vs_metric_learning",
        functools.partial(seconds, pairs=256, peer=metric_learning, rounds=3),
        "s",
        "pytorch-metric-learning NTXentLoss",
        needs="pytorch_metric_learning",
        cores=2,
        note="its memory grows with the cube of the batch: 0.5 GB for one of its tensors here, 275 GB at 2,048 pairs",
    ),
]

if __name__ == "__main__":
    from ssl_zoo.benchmarks.suite import alone

    sys.exit(alone(__file__))
