"""Teacher: an exponential moving average of a student."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssl_zoo.modules.float32 import HALF
from ssl_zoo.shards import own

# Parameters that stay in a core's cache are passed over twice, which rounds as ``m * t + (1 - m) * s`` of the authors
# does. More of them are moved once, at the memory's speed (ResNet-50, two cores: 5.0 ms against 8.1); the last bit of
# those may differ.
IN_CACHE = 2**18

TAUGHT = 2  # views that the teachers of DINO's family see, and whose patches are masked: the global ones


class TeacherEvaluated:
    """Of methods whose authors evaluate the teacher's backbone: an average of many students is better than the last."""

    teacher: EMA
    evaluate_student = False

    @property
    def encoder(self) -> Any:
        return self.backbone if self.evaluate_student else self.teacher.net  # type: ignore[attr-defined]


class TeacherMoves:
    """Of methods whose teacher moves before its forward, as their authors', or right after the optimizer's step.

    Both give the same weights to the next forward, but for the momentum on a schedule, which is a step further when the
    move comes first; and the first teacher moves once when it is equal to the student.
    """

    moves_after_step = False

    def move_teacher(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define move_teacher()")

    def before_step(self) -> None:
        if not self.moves_after_step:
            self.move_teacher()

    def after_step(self) -> None:
        if self.moves_after_step:
            self.move_teacher()


class EMA(nn.Module):
    """Frozen copy of a student whose parameters follow the student's.

    Parameters only: its batch-norm statistics come from its own forwards, as in the authors' code of MoCo, BYOL and
    DINO. The copy starts equal to the student.

    Of a copy in half precision (``trainer.precision=bf16-true``) a float32 master follows the student, and the copy is
    the master rounded; the master is what checkpoints hold, under the copy's names.

    Args:
        student: Network to copy; later passed to :meth:`update` with the same parameter names.
        statistics: The buffers that are not whole numbers follow too: for a copy that sees no batch of the training, so
            that its batch norms have no statistics of their own (Noisy Student).
    """

    def __init__(self, student: nn.Module, statistics: bool = False) -> None:
        super().__init__()
        self.net = copy.deepcopy(student)
        self.statistics = statistics
        self._masters: dict[str, Tensor] = {}  # float32, of what is in half precision, by its name in ``net``
        self.register_state_dict_post_hook(_masters_for_copies)
        self.register_load_state_dict_pre_hook(_masters_from_copies)
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
        for name, value in old.items():
            if value.dtype in HALF and name not in self._masters:  # the copy alone was cast
                self._masters[name] = value.float()
        held = {name: self._masters.get(name, value) for name, value in old.items()}
        teacher, followed = own(held.values()), own(new[name] for name in held)
        source = [value.to(mean.dtype) for value, mean in zip(followed, teacher, strict=True)]
        if sum(map(Tensor.numel, teacher)) <= IN_CACHE:
            torch._foreach_mul_(teacher, momentum)
            torch._foreach_add_(teacher, torch._foreach_mul(source, 1.0 - momentum))  # alpha would round once
        else:
            torch._foreach_lerp_(teacher, source, 1.0 - momentum)
        for name, master in self._masters.items():
            old[name].copy_(master)

    def _followed(self, net: nn.Module) -> dict[str, Tensor]:
        followed: dict[str, Tensor] = dict(net.named_parameters())
        if self.statistics:
            followed |= {name: buffer for name, buffer in net.named_buffers() if buffer.is_floating_point()}
        return followed

    @torch.no_grad()
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = {name: value.data for name, value in self._followed(self.net).items()} | self._masters
        super()._apply(fn, recurse)
        now = self._followed(self.net)
        for name in [name for name in self._masters if now[name].dtype not in HALF]:  # cast back
            now[name].copy_(exact[name])
        half = {name: value.device for name, value in now.items() if value.dtype in HALF}
        self._masters = {name: exact[name].to(device, torch.float32) for name, device in half.items()}
        return self


def _masters_for_copies(ema: EMA, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.update({f"{prefix}net.{name}": master for name, master in ema._masters.items()})


@torch.no_grad()
def _masters_from_copies(ema: EMA, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, master in ema._masters.items():
        if (value := state.get(f"{prefix}net.{name}")) is not None:
            master.copy_(value)
