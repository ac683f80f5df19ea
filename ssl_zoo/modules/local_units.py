"""Local learning: every unit of consecutive stages has a loss of its own, and no gradient leaves a unit downwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Activations' gradients may be float16, whose smallest number is 6e-8; a power of two changes nothing else.
SCALE = 2.0**10


class Trained(NamedTuple):
    """What :func:`train_locally` gives."""

    loss: Tensor  # scalar, sum of the units' losses; its backward hands out the gradients that are already known
    losses: list[Tensor]  # of the units, lowest first, detached
    maps: list[Tensor]  # of the last stage, one for each view, detached


class _Segment(NamedTuple):
    """A stage's forward pass: from ``leaves`` to ``outs``, one of each for each view."""

    params: list[Tensor]
    leaves: list[Tensor]
    outs: list[Tensor]


def train_locally(
    stages: Sequence[nn.Module],
    heads: Sequence[nn.Module],
    views: Sequence[Tensor],
    unit_loss: Callable[[nn.Module, Sequence[Tensor]], Tensor],
    depth: int,
) -> Trained:
    """Losses of overlapping units and their gradients: Sec. 3 of LoCo, https://arxiv.org/abs/2008.01342.

    Unit ``u`` is the stages ``u .. u + depth - 1`` and a head; its input is cut off from what lies below. ``depth=2``
    is LoCo (a stage inside the network learns from two losses), 1 is Greedy InfoMax (no overlap), and all stages at
    once are end-to-end training. Each stage runs forward once. A unit is differentiated as soon as its loss is known,
    so that the activations of ``depth`` stages are alive at a time, instead of those of all.

    Args:
        stages: Applied one after the other.
        heads: One for each unit: ``len(stages) - depth + 1``.
        views: V x ``[B, ...]``.
        unit_loss: Of a head and V maps ``[B, C, h, w]`` to a scalar.
        depth: Stages of a unit.
    """
    maps: list[Tensor] = list(views)
    alive: list[_Segment] = []
    gradients: dict[Tensor, Tensor] = {}
    losses = []
    for number, stage in enumerate(stages):
        leaves = [x.detach().requires_grad_(number > 0) for x in maps]  # nobody asks for the gradient of pixels
        outs = [stage(leaf) for leaf in leaves]
        alive = [*alive, _Segment(_trainable(stage), leaves, outs)][-depth:]
        maps = [out.detach() for out in outs]
        if number + 1 >= depth:
            head = heads[number + 1 - depth]
            losses.append(_differentiate(head, unit_loss, alive, gradients, last=number + 1 == len(stages)))
    total = torch.stack(losses).sum()
    params = list(gradients)
    loss = _Known.apply(total, [gradients[p] / SCALE for p in params], *params)
    return Trained(loss, losses, maps)


def _trainable(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def _differentiate(
    head: nn.Module,
    unit_loss: Callable[[nn.Module, Sequence[Tensor]], Tensor],
    segments: Sequence[_Segment],
    gradients: dict[Tensor, Tensor],
    last: bool,
) -> Tensor:
    """Loss of the unit that ``segments`` are; adds ``SCALE`` times its gradients to ``gradients``."""
    tops = [out.detach().requires_grad_() for out in segments[-1].outs]
    loss = unit_loss(head, tops)
    params = _trainable(head)
    found = torch.autograd.grad(loss, [*params, *tops], loss.new_full((), SCALE))
    _add(gradients, params, found)
    flowing = found[len(params) :]
    for i in range(len(segments) - 1, -1, -1):
        segment, lowest = segments[i], i == 0
        wanted = [*segment.params, *([] if lowest else segment.leaves)]
        if not wanted:
            break  # a frozen stage at the bottom
        # The lowest stage of a unit belongs to no later one; the others are differentiated again.
        found = torch.autograd.grad(segment.outs, wanted, flowing, retain_graph=not lowest and not last)
        _add(gradients, segment.params, found)
        flowing = found[len(segment.params) :]
    return loss.detach()


def _add(gradients: dict[Tensor, Tensor], params: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    for p, gradient in zip(params, found, strict=False):  # the gradients of leaves stand behind those of parameters
        gradients[p] = gradients[p] + gradient if p in gradients else gradient


class _Known(torch.autograd.Function):
    """A number whose gradients are known: backward gives them to the parameters, where DDP waits for them."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *params: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, *(grad * gradient for gradient in ctx.gradients)
