"""Steps of an optimizer on a few small tensors, to see what it does, and the same by the rule that words describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

RATES = (0.2, 0.3, 0.1)  # of the steps: what a rate inside the momentum does shows where it changes
DECAY = 0.05
HELD = ("params", "name", "lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "initial_lr")


@dataclass(frozen=True)
class Law:
    """An update rule. ``sum_of_norms``: below the trust ratio stands ``|g| + wd |w| + eps``, else ``|g + wd w|``.

    Args:
        family: SGD, LARS, Adam, AdamW or RMSProp.
        zero: What is taken where a norm is 0: ``one`` (a ratio of 1), ``raw`` (the gradient without decay), or None:
            nobody says.
        rate_in_buffer: The learning rate is multiplied into the momentum.
        smoothing: Of RMSProp's squares.
    """

    family: str
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 0.0
    trust: float = 0.001
    clip: bool = False
    sum_of_norms: bool = False
    zero: str | None = None
    rate_in_buffer: bool = False
    smoothing: float = 0.9


def cases() -> dict[str, tuple[Tensor, list[Tensor]]]:
    """Weights and gradients of every step: usual ones, long weights (the ratio is clipped), tiny ones (eps shows)."""
    generator = torch.Generator().manual_seed(0)

    def drawn(scale: float) -> Tensor:
        return scale * torch.randn(4, 3, generator=generator, dtype=torch.float64)

    sizes = {"usual": (1.0, 1.0), "long": (1e3, 1.0), "tiny": (1e-9, 1e-9), "zero": (0.0, 1.0)}
    return {name: (drawn(w), [drawn(g) for _ in RATES]) for name, (w, g) in sizes.items()}


def stepped(kind: type[Optimizer], group: Mapping[str, Any], weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """A tensor after the steps of an optimizer with the options of one of its groups."""
    p = nn.Parameter(weight.clone())
    options = {key: x for key, x in group.items() if key not in HELD}
    made: Any = kind
    optimizer = made([{"params": [p], "weight_decay": group.get("decay_probed", DECAY), **options}], lr=RATES[0])
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = gradient.clone()
        optimizer.step()
    return p.detach()


def adapts(kind: type[Optimizer], group: Mapping[str, Any]) -> bool:
    """Whether the size of a tensor decides the size of its steps."""
    weight, gradients = cases()["usual"]
    free = {**group, "decay_probed": 0.0}
    short, long = (stepped(kind, free, scale * weight, gradients) - scale * weight for scale in (1.0, 2.0))
    return not torch.allclose(short, long, rtol=1e-6, atol=0)


def by_law(law: Law, weight: Tensor, gradients: list[Tensor]) -> Tensor:
    """The same steps by a rule that is written out."""
    w, state = weight.clone(), {"v": torch.zeros_like(weight), "s": torch.zeros_like(weight)}
    if law.family == "RMSProp":
        state["s"] = torch.ones_like(weight)  # TensorFlow's start of the squares
    for k, (rate, g) in enumerate(zip(RATES, gradients, strict=True)):
        w = _FAMILIES[law.family](law, w, g, rate, state, k)
    return w


def _sgd(law: Law, w: Tensor, g: Tensor, rate: float, state: dict[str, Tensor], k: int) -> Tensor:
    d = g + DECAY * w
    state["v"] = law.momentum * state["v"] + (d if k == 0 else (1 - law.dampening) * d)
    return w - rate * (d + law.momentum * state["v"] if law.nesterov else state["v"])


def _lars(law: Law, w: Tensor, g: Tensor, rate: float, state: dict[str, Tensor], k: int) -> Tensor:
    d = _adapted(law, w, g, rate) * (rate if law.rate_in_buffer else 1.0)
    state["v"] = law.momentum * state["v"] + d
    step = d + law.momentum * state["v"] if law.nesterov else state["v"]
    return w - (1.0 if law.rate_in_buffer else rate) * step


def _adapted(law: Law, w: Tensor, g: Tensor, rate: float) -> Tensor:
    d = g + DECAY * w
    below = g.norm() + DECAY * w.norm() + law.eps if law.sum_of_norms else d.norm() + law.eps
    if w.norm() == 0 or g.norm() == 0:
        return g if law.zero == "raw" else d
    ratio = law.trust * w.norm() / below
    return d * (torch.clamp(ratio / rate, max=1.0) if law.clip else ratio)


def _adam(law: Law, w: Tensor, g: Tensor, rate: float, state: dict[str, Tensor], k: int) -> Tensor:
    decoupled = law.family == "AdamW"
    d, (first, second) = (g if decoupled else g + DECAY * w), law.betas
    state["v"] = first * state["v"] + (1 - first) * d
    state["s"] = second * state["s"] + (1 - second) * d**2
    root = (state["s"] / (1 - second ** (k + 1))).sqrt() + law.eps
    return w * (1 - rate * DECAY if decoupled else 1.0) - rate * state["v"] / (1 - first ** (k + 1)) / root


def _rmsprop(law: Law, w: Tensor, g: Tensor, rate: float, state: dict[str, Tensor], k: int) -> Tensor:
    d = g + DECAY * w
    state["s"] = law.smoothing * state["s"] + (1 - law.smoothing) * d**2
    state["v"] = law.momentum * state["v"] + rate * d / (state["s"] + law.eps).sqrt()
    return w - state["v"]


_FAMILIES: dict[str, Callable[..., Tensor]] = {
    "SGD": _sgd, "LARS": _lars, "Adam": _adam, "AdamW": _adam, "RMSProp": _rmsprop,
}  # fmt: skip
