"""The trainer's part of a configuration: devices, precision, and Lightning's trainer as the house runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy

from ssl_zoo.callbacks.checkpoint import CheckpointFile
from ssl_zoo.config import divisible, sharding_problems
from ssl_zoo.errors import ConfigError, require
from ssl_zoo.ranges import Limit, Positive, Size
from ssl_zoo.rank_environment import Started
from ssl_zoo.rendezvous import HANGS, PATIENCE, Meeting
from ssl_zoo.sharding import Sharded

Precision = Literal[
    "auto", "32-true", "16-mixed", "bf16-mixed", "64-true", "16-true", "bf16-true", "transformer-engine",
    "transformer-engine-float16", "64", "32", "16", "bf16", 64, 32, 16,
]  # fmt: skip


ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
NO_MPS = "crops and neighbours are computed in float64, which MPS does not have"


def devices_of(cfg: DictConfig) -> int:
    """How many processes a node runs: ``trainer.devices``, or all devices for -1."""
    wanted = cfg.trainer.devices
    if wanted != -1:
        return int(wanted)
    on_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.cuda.device_count() if on_gpu else 1


def device_of(cfg: DictConfig) -> torch.device:
    """On which a single process trains."""
    return torch.device("cuda" if cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def mps_note(accelerator: str) -> list[str]:
    """What is told where an Apple GPU lies idle, because ``auto`` means a CUDA device or the CPU."""
    idle = accelerator == "auto" and not torch.cuda.is_available() and torch.backends.mps.is_available()
    return [f"trainer.accelerator=auto: the GPU of this Mac is not used ({NO_MPS}); this run trains on the CPU"] * idle


def check_devices(cfg: DictConfig) -> None:
    """What only the machine can tell: the accelerator exists, has enough devices, and the batch splits over them."""
    wanted = str(cfg.trainer.accelerator)
    if wanted == "mps":
        raise ConfigError(f"trainer.accelerator=mps is not supported ({NO_MPS}); use trainer=cpu")
    require("trainer.accelerator", wanted, ACCELERATORS, ConfigError)
    if cfg.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu: torch finds no GPU here; use trainer=cpu, or trainer=auto")
    devices = devices_of(cfg)
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu and devices > torch.cuda.device_count():
        raise ConfigError(
            f"trainer.devices={devices}: this process sees {torch.cuda.device_count()} GPU(s) of its machine; where "
            "there are more, let each process see all (srun --gpus-per-node=N without --gpus-per-task)"
        )
    if cfg.trainer.get("strategy") == "fsdp" and not on_gpu and not hasattr(torch.cpu.Stream, "wait_event"):
        raise ConfigError(f"trainer.strategy=fsdp on a CPU wants torch 2.7 or later, and this is {torch.__version__}; "
                          "use trainer=ddp")
    found = [*divisible(cfg, devices), *sharding_problems(cfg, precision_of(cfg))]
    if found:
        raise ConfigError("\n".join(found))


def precision_of(cfg: DictConfig) -> str:
    """``trainer.precision``, where ``auto`` is a rule on the hardware, never a timing."""
    wanted = str(cfg.trainer.precision)
    if wanted != "auto":
        return wanted
    if cfg.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def half_note(precision: str) -> list[str]:
    """What is told of a run all of whose networks are in half precision: nothing of any other."""
    if precision not in ("bf16-true", "16-true"):
        return []
    kind = precision.removesuffix("-true")
    return [
        f"trainer.precision={precision}: weights and the optimizer's moments are in half precision too, where a small "
        "change to a large number is lost; teachers, memories and batch norms keep float32. "
        f"trainer.precision={kind}-mixed keeps float32 weights"
    ]


def make_trainer(
    callbacks: list[pl.Callback],
    loggers: list[Any],
    run_dir: str | Path,
    meeting: Meeting | None,
    /,
    precision: Precision,
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    max_epochs: Limit = 20,
    max_steps: Limit = -1,
    accumulate: int = 1,
    clip: dict[str, Any] | None = None,
    log_every: Size = 10,
    deterministic: bool = False,
    compile: bool | Literal["graphs"] = False,
    activation_checkpointing: bool = False,
    checkpoint_every: Size | None = None,
    checkpoint_minutes: Positive | None = None,
    keep_every: Size | None = None,
    max_time: str | None = None,
    rendezvous_timeout: Positive = PATIENCE,
    collective_timeout: Positive = HANGS,
) -> pl.Trainer:
    """Lightning's trainer with what the house leaves to nobody: samplers, buffers, checkpoints, validation.

    When checkpoints are written, and when time is up, is :class:`ssl_zoo.callbacks.checkpoint.RunCheckpoint`'s to know;
    how long processes wait for one another, :mod:`ssl_zoo.rendezvous`'s. ``meeting``: of several processes; None: one.
    """
    # Always one of these: Lightning would find Slurm's by itself.
    environment = LightningEnvironment() if meeting is None else Started(meeting)
    plugins: list[Any] = [CheckpointFile(), environment]
    exact: Precision | None = precision
    if strategy == "fsdp" and str(precision) in ("64-true", "64"):  # Lightning's list for this strategy lacks the word
        plugins, exact = [*plugins, DoublePrecision()], None
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    found = "cuda" if torch.cuda.is_available() else "cpu"  # Lightning's own `auto` takes MPS, and TPUs
    return pl.Trainer(
        accelerator=found if accelerator == "auto" else accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy="auto" if meeting is None else _strategy(strategy, devices * num_nodes),
        plugins=plugins,
        precision=exact,  # type: ignore[arg-type]  # "auto" is resolved by now
        max_epochs=max_epochs,
        max_steps=max_steps,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=log_every,
        deterministic=deterministic,
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=run_dir,
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def _strategy(name: str, processes: int) -> Strategy:
    if name == "fsdp":
        return Sharded(processes)
    # Every rank writes the same buffers and uses every parameter (DESIGN, section 9).
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=False)
