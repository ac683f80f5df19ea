"""What a run shows before its first step: the screen, and the picture of its views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from ssl_zoo.optim.schedules import Progress
from ssl_zoo.report.startup import screen
from ssl_zoo.report.views import save_data_views


def planned(cfg: DictConfig, data: Any, step: int = 0) -> Progress:
    """Steps per epoch and in total, as the trainer will take them."""
    per_epoch = data.info.samples // data.batch_size
    total = per_epoch * cfg.trainer.max_epochs
    return Progress(step, min(total, cfg.trainer.max_steps) if cfg.trainer.max_steps > 0 else total, per_epoch)


def show(cfg: DictConfig, run_dir: Path, method: Any, data: Any, resume: str | None, devices: int) -> None:
    """Print the screen and, unless ``report=false``, draw ``views.png``."""
    if cfg.report:
        save_data_views(data, run_dir / "views.png")
    text = screen(
        cfg,
        method,
        method.bound,
        data.info,
        planned(cfg, data),
        run_dir,
        devices=devices,
        augmentation=data.describe(),
        checkpoints=2,  # last and best
        notes=[f"continues from {resume}"] if resume else [],
    )
    Console().print(text)
