"""How large the gradients of chosen parameters are, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ssl_zoo.errors import ConfigError
from ssl_zoo.ranges import Size
from ssl_zoo.shards import norms


class GradientNorm(pl.Callback):
    """Log the norm of the gradient of parameters by their names, before any clipping.

    MoCo v3 (https://arxiv.org/abs/2104.02057, Sec. 4.2) finds training that is unstable by spikes of the gradient,
    which the first layer has some steps before the others.

    Logs ``gradient/NAME``, the norm over all parameters that a pattern takes. Those without a gradient (frozen) do not
    count; where none has one nothing is logged.

    Args:
        match: NAME -> regular expression, searched in the names of the method's parameters.
        every_n_steps: Optimizer steps between readings; each reading waits for the device once.
    """

    def __init__(self, match: Mapping[str, str], every_n_steps: Size = 1) -> None:
        self.match = dict(match)
        self.every_n_steps = every_n_steps
        self._taken: dict[str, list[nn.Parameter]] = {}
        self._found: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, method: Any) -> None:
        """Raises ConfigError for a pattern that takes no parameter."""
        self._taken, self._found = {}, {}
        named = dict(method.named_parameters())
        for name, pattern in self.match.items():
            try:
                taken = [parameter for full, parameter in named.items() if re.search(pattern, full)]
            except re.error as error:
                raise ConfigError(f"callbacks.gradient_norm.match.{name}={pattern!r}: {error}") from None
            if not taken:
                some = ", ".join(list(named)[:6])
                raise ConfigError(f"callbacks.gradient_norm.match.{name}={pattern!r} matches none of {len(named)} "
                                  f"parameters: {some}, ...")  # fmt: skip
            self._taken[name] = taken

    def on_before_optimizer_step(self, trainer: pl.Trainer, method: Any, optimizer: Any) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        for name, parameters in self._taken.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                self._found[name] = torch.linalg.vector_norm(norms(gradients))

    def on_train_batch_end(self, trainer: pl.Trainer, method: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        found, self._found = self._found, {}
        if found:
            method.report({f"gradient/{name}": value.item() for name, value in found.items()})
