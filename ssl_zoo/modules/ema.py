"""Teacher: an exponential moving average of a student."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

# Parameters that stay in a core's cache are passed over twice, which rounds as ``m * t + (1 - m) * s`` of the authors
# does. More of them are moved once, at the memory's speed (ResNet-50, two cores: 5.0 ms against 8.1); the last bit of
# those may differ.
IN_CACHE = 2**18


class TeacherEvaluated:
    """Of methods whose authors evaluate the teacher's backbone: an average of many students is better than the last."""

    teacher: EMA

    @property
    def encoder(self) -> Any:
        return self.teacher.net


class EMA(nn.Module):
    """Frozen copy of a student whose parameters follow the student's.

    Parameters only: its batch-norm statistics come from its own forwards, as in the authors' code of MoCo, BYOL and
    DINO. The copy starts equal to the student; ``reinit`` draws it anew, as BYOL's authors do.

    Args:
        student: Network to copy; later passed to :meth:`update` with the same parameter names.
        reinit: Re-initialise every sub-module that knows how (``reset_parameters``).
        statistics: The buffers that are not whole numbers follow too: for a copy that sees no batch of the training, so
            that its batch norms have no statistics of their own (Noisy Student).
    """

    def __init__(self, student: nn.Module, reinit: bool = False, statistics: bool = False) -> None:
        super().__init__()
        self.net = copy.deepcopy(student)
        self.statistics = statistics
        if reinit:
            _redraw(self.net)
        module: Any  # networks of any library, whose attributes torch's types do not know
        for module in self.net.modules():
            if isinstance(getattr(module, "drop_prob", None), float):
                module.drop_prob = 0.0  # a teacher's stochastic depth would make its targets noisy
        self.net.requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.net(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """``teacher = momentum * teacher + (1 - momentum) * student`` for all that follows, matched by name.

        Raises:
            ValueError: If the student's parameters are not the teacher's, naming the first that differs.
        """
        new, old = self._followed(student), self._followed(self.net)
        if new.keys() != old.keys():
            odd = sorted(new.keys() ^ old.keys())[0]
            raise ValueError(f"teacher and student differ: parameter {odd!r} belongs to one of them only")
        if not old:
            return
        teacher: list[Tensor] = list(old.values())
        source: list[Tensor] = [new[name] for name in old]
        if sum(map(Tensor.numel, teacher)) <= IN_CACHE:
            torch._foreach_mul_(teacher, momentum)
            torch._foreach_add_(teacher, torch._foreach_mul(source, 1.0 - momentum))  # alpha would round once
        else:
            torch._foreach_lerp_(teacher, source, 1.0 - momentum)

    def _followed(self, net: nn.Module) -> dict[str, Tensor]:
        followed: dict[str, Tensor] = dict(net.named_parameters())
        if self.statistics:
            followed |= {name: buffer for name, buffer in net.named_buffers() if buffer.is_floating_point()}
        return followed


@torch.no_grad()
def _redraw(net: nn.Module) -> None:
    """Draw every parameter anew, except the constant ones: a zero-initialised norm scale is a choice, not a draw."""
    module: Any
    for module in net.modules():
        if not hasattr(module, "reset_parameters"):
            continue
        own = module.named_parameters(recurse=False)
        held = {name: p.clone() for name, p in own if bool((p == p.flatten()[0]).all())}
        module.reset_parameters()
        for name, value in held.items():
            getattr(module, name).copy_(value)
