"""RMSProp as TensorFlow has it, which torch's is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from ssl_zoo.shards import own


class RMSProp(Optimizer):
    """``tf.train.RMSPropOptimizer``, with which EfficientNets are trained (utils.py of google-research/noisystudent).

    With ``d = g + weight_decay w``: ``s = alpha s + (1 - alpha) d^2``, ``v = m v + lr d / sqrt(s + eps)``, ``w -= v``.
    ``s`` starts at 1, ``eps`` stands below the root and the rate inside the momentum: torch's starts at 0, adds eps
    behind the root and multiplies the rate last.

    Args:
        alpha: Of the mean of squares; TensorFlow's ``decay``.
        weight_decay: L2, added to the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        alpha: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        right = {"alpha": 0 <= alpha < 1, "momentum": 0 <= momentum < 1, "eps": eps > 0}
        right["weight_decay"] = weight_decay >= 0
        wrong = [key for key, holds in right.items() if not holds]
        if wrong:
            raise ValueError(
                f"{wrong[0]}={options[wrong[0]]} of RMSProp: wanted alpha and momentum in [0, 1), eps above 0 and "
                "weight_decay of 0 or more"
            )
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._move(params, group)
        return loss

    def _move(self, params: list[Any], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p].update(squares=torch.ones_like(p), momentum_buffer=torch.zeros_like(p))
        squares, buffers = (own(self.state[p][key] for p in params) for key in ("squares", "momentum_buffer"))
        gradients: list[Any] = [p.grad for p in params]
        params = own(params)
        d = torch._foreach_add(own(gradients), params, alpha=group["weight_decay"])
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, d, d, value=1 - group["alpha"])
        root = torch._foreach_sqrt(torch._foreach_add(squares, group["eps"]))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, d, root, value=group["lr"])
        torch._foreach_sub_(params, buffers)
