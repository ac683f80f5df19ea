"""Gradient clipping in the three ways that authors use, of all parameters or of some."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ssl_zoo.shards import is_shard, norms, own

# What the names of parameters that share a norm have in common.
_SHARED: dict[str, Callable[[str], str]] = {
    "global": lambda name: "",
    "per_module": lambda name: name.partition(".")[0] if "." in name else "",
    "per_tensor": lambda name: name,
}


@dataclass(frozen=True)
class Clip:
    """Scales gradients down to a norm of at most ``value``, in place; the keys of ``trainer.clip``.

    Args:
        mode: ``global`` (one norm over all), ``per_module`` (one norm per child, and one for the parameters of no
            child, as a mask token: DINOv2) or ``per_tensor`` (one norm per parameter: ``clip_gradients`` of DINO's
            ``utils.py``).
        value: Largest norm, > 0.
        match: Regular expression searched in the names: others are neither clipped nor counted (MSN's prototypes).
    """

    mode: Literal["global", "per_module", "per_tensor"]
    value: float
    match: str | None = None

    def __call__(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Clip the gradients of these parameters, named as ``module.named_parameters()`` does."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, p in named:
            if p.grad is not None and self.takes(name):
                groups.setdefault(_SHARED[self.mode](name), []).append(p)
        members = list(groups.values())
        if any(is_shard(p) for group in members for p in group):
            _clip_shards(members, self.value)
            return
        for group in members:
            torch.nn.utils.clip_grad_norm_(group, self.value)

    def takes(self, name: str) -> bool:
        return self.match is None or re.search(self.match, name) is not None

    def problem(self, names: Iterable[str]) -> str | None:
        """The sentence about a value that cannot work for trained parameters of these names, or None."""
        if self.value <= 0:
            return f"trainer.clip.value={self.value:g}: wanted the largest norm, above 0; null for trainer.clip: none"
        names = list(names)
        try:
            if any(map(self.takes, names)):
                return None
        except re.error as error:
            return f"trainer.clip.match={self.match!r} is no regular expression: {error}"
        parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
        return f"trainer.clip.match={self.match!r} matches none of {len(names)} trained parameters, those of: {parts}"


def _clip_shards(groups: list[list[nn.Parameter]], value: float) -> None:
    """``torch.nn.utils.clip_grad_norm_`` of each group, by the norms of whole gradients: one collective for all."""
    gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
    lengths = norms([gradient for group in gradients for gradient in group]).split([len(group) for group in gradients])
    for group, length in zip(gradients, lengths, strict=True):
        scale = (value / (torch.linalg.vector_norm(length) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(own(group), scale)
