"""Activation checkpointing: a block keeps its input alone, and runs once more when its gradient arrives.

Chen et al. 2016, https://arxiv.org/abs/1604.06174, by torch's checkpoints. The second run draws what the first one drew
and leaves the statistics of batch norms as they are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_zoo.backbones.blocks import blocks
from ssl_zoo.errors import ConfigError
from ssl_zoo.modules.grad_cache import Norms
from ssl_zoo.passes import layout


def recompute_blocks(net: nn.Module) -> None:
    """In place: every block of ``net`` computes its activations again in the backward pass; names and numbers stay.

    Raises:
        ConfigError: If the network has no blocks.
    """
    found = blocks(net)
    if not found:
        raise ConfigError(
            "trainer.activation_checkpointing=true computes the blocks of a network again, and this backbone is not "
            "built of blocks; set trainer.activation_checkpointing=false"
        )
    for block in found:
        block.forward = MethodType(_forward, block)  # a method, so that a copy of the block runs the copy


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return run(*args, **kwargs)
    norms = Norms(block)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), norms.forgetting(layout())

    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)
