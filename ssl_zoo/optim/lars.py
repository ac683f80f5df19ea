"""Layer-wise adaptive rates: the two families that authors call LARS, with every official variant as an option."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_zoo.errors import require
from ssl_zoo.shards import own, whole_norms

BUFFERS = ("scaled", "step", "raw")


class LARS(Optimizer):
    """LARS, You et al. 2017, https://arxiv.org/abs/1708.03888, as SimCLR, BYOL, Barlow Twins and VICReg use it.

    With ``d = g + weight_decay w`` and ``t = trust |w| / |d|`` (1 where either norm is 0, or the group does not adapt):

    - ``buffer="scaled"``: ``v = m v + t d;  w -= lr v`` (BYOL, MoCo v3, Barlow Twins, VICReg, DINO, MAE).
    - ``buffer="step"``: ``v = m v + lr t d;  w -= v`` (SimCLR, ``classic_momentum``). The learning rate is inside the
      buffer, so this differs from ``scaled`` wherever the rate changes between steps.
    - ``buffer="raw"``: ``v = m v + d;  w -= lr t v`` with ``|v|`` in ``t`` (SimCLR, ``classic_momentum=False``).

    Biases and norms are excluded by a group with ``weight_decay=0, adapt=False``.

    Args:
        trust: The paper's eta; 0.001 in every official code.
        adapt: Scale each tensor by its trust ratio; may differ per group.
        nesterov: SimCLR's look-ahead, for ``step`` and ``raw``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
        buffer: str = "scaled",
        nesterov: bool = False,
    ) -> None:
        require("buffer", buffer, BUFFERS)
        if nesterov and buffer == "scaled":
            raise ValueError("nesterov of LARS needs buffer=step or buffer=raw (SimCLR's), got buffer=scaled")
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**options, "adapt": adapt, "buffer": buffer, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = _evaluate(closure)
        for group in self.param_groups:
            params, grads, buffers = _tensors(group, self.state)
            if params:
                d = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
                _FORMS[group["buffer"]](params, buffers, d, group)
        return loss


class LARC(Optimizer):
    """Apex's LARC around SGD with momentum (``apex/parallel/LARC.py``), as SwAV and DeepCluster v2 use it.

    ``t = trust |w| / (|g| + weight_decay |w| + eps)``: the *sum* of the norms, ``g`` without weight decay. Where either
    norm is 0 the gradient is used as it is, without weight decay. Then ``v = m v + t (g + weight_decay w)`` and
    ``w -= lr v``. The authors exclude nothing, neither biases nor norms.

    Args:
        trust: 0.001 in SwAV; solo-learn's small-image recipes use 0.02.
        adapt: False for a group that takes plain SGD with weight decay (solo-learn's biases and norms).
        clip: Use ``min(t / lr, 1)``, so that the rate of a tensor is never above ``lr``.
        nesterov: ``w -= lr (m v + d)``, d as it was added to v: torch's look-ahead (EMP-SSL).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-8,
        clip: bool = False,
        adapt: bool = True,
        nesterov: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**options, "eps": eps, "clip": clip, "adapt": adapt, "nesterov": nesterov})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("nesterov", False)  # checkpoints of earlier versions do not say it

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = _evaluate(closure)
        for group in self.param_groups:
            params, grads, buffers = _tensors(group, self.state)
            if params:
                d = _larc_direction(params, grads, group)
                _accumulate(buffers, d, group["momentum"])
                torch._foreach_add_(params, _ahead(buffers, d, group), alpha=-group["lr"])
        return loss


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _tensors(group: dict[str, Any], state: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Parameters of a group that have a gradient, the gradients, and their momentum buffers (0 at first).

    Of parameters that are split over processes (FSDP) this process's rows of all three.
    """
    params = [p for p in group["params"] if p.grad is not None]
    for p in params:
        if "momentum_buffer" not in state[p]:
            state[p]["momentum_buffer"] = torch.zeros_like(p)
    return own(params), own(p.grad for p in params), own(state[p]["momentum_buffer"] for p in params)


def _norms(tensors: list[Tensor], group: dict[str, Any]) -> Tensor:
    """Of whole tensors, whatever of them is here."""
    return whole_norms(torch.stack(list(torch._foreach_norm(tensors))), group["params"])


def _times_trust(params: list[Tensor], d: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """``t d`` per tensor; on the device, so that no step waits for the host."""
    if not group["adapt"]:
        return d
    w, norm = _norms(params, group), _norms(d, group)
    trust = torch.where((w > 0) & (norm > 0), group["trust"] * w / norm, torch.ones_like(w))
    return list(torch._foreach_mul(d, list(trust.unbind())))


def _accumulate(buffers: list[Tensor], d: list[Tensor], momentum: float) -> None:
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, d)


def _scaled(params: list[Tensor], buffers: list[Tensor], d: list[Tensor], group: dict[str, Any]) -> None:
    _accumulate(buffers, _times_trust(params, d, group), group["momentum"])
    torch._foreach_add_(params, buffers, alpha=-group["lr"])


def _step(params: list[Tensor], buffers: list[Tensor], d: list[Tensor], group: dict[str, Any]) -> None:
    d = list(torch._foreach_mul(_times_trust(params, d, group), group["lr"]))
    _accumulate(buffers, d, group["momentum"])
    torch._foreach_sub_(params, _ahead(buffers, d, group))


def _raw(params: list[Tensor], buffers: list[Tensor], d: list[Tensor], group: dict[str, Any]) -> None:
    _accumulate(buffers, d, group["momentum"])
    torch._foreach_add_(params, _times_trust(params, _ahead(buffers, d, group), group), alpha=-group["lr"])


def _ahead(buffers: list[Tensor], d: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """What is taken from the parameters: the buffer, or Nesterov's look-ahead ``m v + d``."""
    if not group["nesterov"]:
        return buffers
    return list(torch._foreach_add(torch._foreach_mul(buffers, group["momentum"]), d))


_FORMS: dict[str, Callable[[list[Tensor], list[Tensor], list[Tensor], dict[str, Any]], None]] = {
    "scaled": _scaled,
    "step": _step,
    "raw": _raw,
}


def _larc_direction(params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """``t (g + weight_decay w)`` per tensor, or ``g`` where a norm is 0."""
    decay = group["weight_decay"]
    if not group["adapt"]:
        return list(torch._foreach_add(grads, params, alpha=decay))
    w, g = _norms(params, group), _norms(grads, group)
    trust = group["trust"] * w / (g + decay * w + group["eps"])
    if group["clip"]:
        # A rate of 0 (the first step of a warm-up) moves nothing whatever the ratio is.
        trust = (trust / group["lr"]).clamp(max=1.0) if group["lr"] else torch.ones_like(trust)
    usable = (w > 0) & (g > 0)
    trust = torch.where(usable, trust, torch.ones_like(trust))
    decays = list((trust * usable * decay).unbind())
    return list(torch._foreach_add(torch._foreach_mul(grads, list(trust.unbind())), torch._foreach_mul(params, decays)))
