"""FSDP2: parameters, gradients and the optimizer's state split over the processes (``trainer=fsdp``).

https://arxiv.org/abs/2304.11277, by ``torch.distributed.fsdp.fully_shard``. The numbers are DDP's: gradients are the
mean over the processes, weights and sums keep their precision, and only their place in memory changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.optim import Optimizer

from ssl_zoo.backbones.base import Backbone
from ssl_zoo.backbones.blocks import blocks
from ssl_zoo.shards import is_shard, split, whole

AT_ONCE = "_at_once"  # a method's word for a pass of which its blocks are parts


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with the checkpoints of DDP: whole tensors under the same names, in one file.

    Lightning's own number the optimizer's tensors as the method does its parameters, torch's as the groups of the
    optimizer: in the other's file, moments would belong to other weights.

    Args:
        processes: Of the run, over all nodes.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole_state(self.lightning_module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        found = optimizer.state_dict()
        state = {
            number: {name: whole(value) for name, value in entry.items()} for number, entry in found["state"].items()
        }
        return {**found, "state": state}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        like = self.lightning_module.state_dict()
        state = {name: _split_as(value, like.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, found in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {name: _split_as(value, params[number]) for name, value in entry.items()}
                for number, entry in found["state"].items()
            }
            optimizer.load_state_dict({**found, "state": state})


def _split_as(value: Any, like: Any) -> Any:
    """Split a whole tensor as its place is; what is no such tensor (a count of steps, another shape) stays."""
    return split(value, like) if is_shard(like) and getattr(value, "shape", None) == like.shape else value


def whole_state(net: nn.Module) -> dict[str, Any]:
    """``net.state_dict()`` of a single process, on the main one; every process must call it."""
    state = net.state_dict()
    for name, value in state.items():
        state[name] = whole(value)
    return state


def is_sharded(net: nn.Module) -> bool:
    """Whether :func:`shard` has split it: an ``FSDPModule``, whose class takes half as long to import as torch."""
    return hasattr(net, "unshard")


def shard(method: nn.Module, mesh: Any) -> None:
    """Split the parameters of a method over the processes of ``mesh``, in place; once.

    Each block of its backbones, a student's or a teacher's, is put together where it runs. All else is one part, the
    method's own, put together for a training step: a method may use it in any way, but must not write to it there.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    if is_sharded(method):
        return
    # Asked for a mean of float32, gloo gives the sum (pytorch/pytorch#162338); of float64 FSDP itself takes the mean.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float64 if mesh.device_type == "cpu" else None)
    for p in method.parameters():
        p.data = p.data.contiguous()  # FSDP takes no other layout
    backbones = [part for part in method.modules() if isinstance(part, Backbone)]
    parts = {id(block): block for backbone in backbones for block in blocks(backbone)}
    for part in (*parts.values(), method):
        fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    setattr(method, AT_ONCE, MethodType(_nothing, method))
    for name in ("training_step", AT_ONCE):
        register_fsdp_forward_method(method, name)


def _nothing(method: nn.Module) -> None:
    """FSDP takes the module that runs first for the one that holds all others."""


@contextmanager
def gathered(net: nn.Module) -> Iterator[None]:
    """Around passes outside of a training step: every process has all parameters of a sharded method whole.

    So none of them waits for another, and they may run different numbers of batches. What is written to a parameter
    inside is lost. Nothing for other modules, or inside of a training step.
    """
    if not is_sharded(net) or not is_shard(next(net.parameters())):
        yield
        return
    getattr(net, AT_ONCE)()
    parts: list[Any] = [part for part in net.modules() if is_sharded(part)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()
