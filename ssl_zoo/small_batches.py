"""Batches of so few samples that nothing is left to compare, and shares of them that cannot be divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_zoo.errors import ConfigError
from ssl_zoo.trainer import devices_of

if TYPE_CHECKING:
    from ssl_zoo.methods.base import Method

LEAST = 2  # rows that have a variance, and samples that can be told apart


def check(cfg: DictConfig, method: Method, samples: int) -> None:
    """Whether a micro-batch has what the method compares, and what its batch norms take statistics from.

    Args:
        cfg: Of the run.
        method: Built.
        samples: Of a micro-batch over all devices.

    Raises:
        ConfigError: If not, with the smallest ``data.batch_size`` that serves; or if a process's share of it cannot be
            divided as the method does.
    """
    processes = devices_of(cfg) * cfg.trainer.num_nodes
    problem = method.share_problem(samples // processes)
    if problem is not None:
        raise ConfigError(problem)
    name, got, where = type(method).__name__, samples, "over all devices"
    if method.compares == "process" and samples // processes < LEAST:
        got, where, wanted = samples // processes, f"in each of {processes} processes", LEAST * processes
        reason = f"{name} compares the samples of a process with one another"
    elif method.compares == "batch" and samples < LEAST:
        wanted, reason = LEAST, f"{name} compares the samples of a batch with one another"
    elif norms := [path for path, part in method.named_modules() if _starved(part, samples)]:
        wanted = max(LEAST * _turns(method.get_submodule(path)) for path in norms)
        others = f" and {len(norms) - 1} more" if len(norms) > 1 else ""
        reason = f"{name} has batch norms ({norms[0]}{others}), which take their statistics from a batch"
    else:
        return
    total, accumulate = cfg.data.batch_size, cfg.trainer.accumulate
    raise ConfigError(
        f"data.batch_size={total}, trainer.accumulate={accumulate}: a micro-batch of {got} "
        f"sample{'s' * (got != 1)} {where}, and {reason}; wanted {wanted} or more over all devices, try "
        f"data.batch_size={wanted * accumulate}"
    )


def _starved(part: nn.Module, samples: int) -> bool:
    return isinstance(part, _BatchNorm) and part.training and samples < LEAST * _turns(part)


def _turns(norm: nn.Module) -> int:
    """One in so many samples comes to the layer."""
    return getattr(norm, "every", 1) or 1
