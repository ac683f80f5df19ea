"""What a run shows before its first step: the screen, and the picture of its views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from ssl_zoo.optim.lengths import planned
from ssl_zoo.report.screen import screen
from ssl_zoo.report.views import draw_views
from ssl_zoo.trainer import device_of, devices_of, half_note, mps_note, precision_of


def starts(method: Any) -> list[str]:
    """What the networks of a method began with, where that were weights from elsewhere."""
    return list(dict.fromkeys(line for part in method.modules() for line in getattr(part, "told", ())))


def show(cfg: DictConfig, run_dir: Path, method: Any, data: Any, step: int = 0) -> None:
    """Print the screen and, unless ``report=false``, draw ``views.png``.

    Args:
        cfg: Of the run.
        run_dir: Its folder.
        method, data: Built.
        step: From which it goes on; 0: it begins.
    """
    if cfg.report:
        draw_views(data, run_dir / "views.png")
    processes = devices_of(cfg)
    text = screen(
        cfg,
        method,
        method.bind(data.batch_size, fused=False),
        data.info,
        planned(cfg, data.epoch_samples, step),
        run_dir,
        devices=processes * cfg.trainer.num_nodes,
        augmentation=data.describe(device_of(cfg), processes),
        checkpoints=2,  # last and best
        decisions=data.decisions,
        notes=[
            *([f"continues {cfg.resume}"] if cfg.resume else []),
            *half_note(precision_of(cfg)),
            *mps_note(cfg.trainer.accelerator),
            *starts(method),
        ],
    )
    Console().print(text)
